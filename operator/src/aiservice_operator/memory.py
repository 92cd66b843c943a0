"""How much GPU memory the models need that the engines are made for, in GiB, by repository and number format.

Data, with its sources. It is there to refuse early what cannot work, so it says what a model needs at the least:
weights, the work of one request, and the half GiB that CUDA itself takes. Formats that are not listed are not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType

from aiservice_api.v1alpha1 import ModelCacheSpec, Precision

Needs = Mapping[Precision, Decimal]
"""GiB by number format."""


def _needs(**gib: str) -> Needs:
    return MappingProxyType({Precision(name): Decimal(value) for name, value in gib.items()})


# The README of openai/whisper says 10, 6, 5, 2, 1 and 1 GB for large, turbo, medium, small, base and tiny; `load_model`
# keeps the weights in fp32, so that is fp32. The engine keeps them in fp16: 3.1 GB for large (1.55e9 of 2 bytes), and
# faster-whisper's README measured 4.5 to 4.8 GB for large in that format. The smaller ones in proportion.
_WHISPER_LARGE = _needs(fp32="10", fp16="5")
_WHISPER_TURBO = _needs(fp32="6", fp16="3")
_WHISPER_MEDIUM = _needs(fp32="5", fp16="2.5")
_WHISPER_SMALL = _needs(fp32="2", fp16="1")
_WHISPER_BASE = _needs(fp32="1", fp16="1")

# The deployment guide says 6 to 12 GB, Stability AI 8 GB for fp16. 3.5e9 parameters: 6.9 GB in fp16, 13.9 GB in fp32.
# In int8 the 2.95e9 of them that are in linear layers of UNet and text encoders take a byte, the VAE and all others
# two: 4.0 GB, or 3.7 GiB; in int4 they take 17 bits for four numbers, 2.6 GB in all. A GiB to work in, and CUDA's half.
_SDXL = _needs(fp32="16", fp16="8", bf16="8", int8="5.2", int4="3.9")

# The deployment guide says 2 to 4 GB; model.pth is 1.9 GB in fp32, and 2.1 GB were seen in use after loading
# (coqui-ai/TTS#3976). The engine serves it in fp32 only; fp16 is for images of the user's own.
_XTTS = _needs(fp32="4", fp16="2")

# Its model card says 14.4, 7.2 and 3.6 GB for the weights; in use about 7.5 GB in fp16. In int8 the engine keeps the
# Q-Former in fp32, and in fp16 the embedding, which is the last layer too: 4.2 GB, or 3.9 GiB, and CUDA's half; in int4
# 2.5 GB.
_BLIP2 = _needs(fp32="15", fp16="7.5", bf16="7.5", int8="4.5", int4="2.9")

NEEDS: Mapping[str, Needs] = MappingProxyType(
    {
        "stabilityai/stable-diffusion-xl-base-1.0": _SDXL,
        "coqui/xtts-v2": _XTTS,
        "openai/whisper-large-v3": _WHISPER_LARGE,
        "openai/whisper-large-v3-turbo": _WHISPER_TURBO,
        "openai/whisper-large-v2": _WHISPER_LARGE,
        "openai/whisper-large": _WHISPER_LARGE,
        "openai/whisper-medium": _WHISPER_MEDIUM,
        "openai/whisper-medium.en": _WHISPER_MEDIUM,
        "openai/whisper-small": _WHISPER_SMALL,
        "openai/whisper-small.en": _WHISPER_SMALL,
        "openai/whisper-base": _WHISPER_BASE,
        "openai/whisper-base.en": _WHISPER_BASE,
        "openai/whisper-tiny": _WHISPER_BASE,
        "openai/whisper-tiny.en": _WHISPER_BASE,
        "salesforce/blip2-opt-2.7b": _BLIP2,
        "salesforce/blip2-opt-2.7b-coco": _BLIP2,
    }
)
"""By repository on the Hugging Face Hub, in lower case: the Hub does not tell upper from lower case."""

GPU_PRECISIONS: Mapping[str, tuple[Precision, ...]] = MappingProxyType(
    {
        "diffusion": (Precision.FP16, Precision.BF16, Precision.FP32, Precision.INT8, Precision.INT4),
        "speech-recognition": (Precision.FP16, Precision.FP32),
        "speech-synthesis": (Precision.FP32,),
        "vision": (Precision.FP16, Precision.BF16, Precision.FP32, Precision.INT8, Precision.INT4),
    }
)
"""What the operator's own engines serve on a GPU, the one that they prefer first. An engine that is not here, or an
image of the user's own, is asked for what the spec says. faster-whisper serves int8, openai-whisper does not, and which
of them runs is seen in the model's files only: so int8 is not here."""

CPU_PRECISIONS: Mapping[str, tuple[Precision, ...]] = MappingProxyType(
    {
        "diffusion": (Precision.FP32, Precision.BF16, Precision.INT8, Precision.INT4),
        "speech-recognition": (Precision.FP32,),
        "speech-synthesis": (Precision.FP32,),
        "vision": (Precision.FP32, Precision.BF16, Precision.INT8, Precision.INT4),
    }
)
"""The same on a CPU."""


def known_needs(model: ModelCacheSpec | None) -> Needs:
    """Returns what a model needs; empty where that is not known."""
    source = model.hugging_face if model is not None else None
    return NEEDS.get(source.repo.lower(), {}) if source is not None else {}
