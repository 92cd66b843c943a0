"""Which models there are, where they come from, where they go, and under which licence. Standard library only.

The repositories and files are those of examples/gpu/*.yaml; a test keeps the two equal. Licence files come along where
a repository has them, since who passes weights on has to pass the licence on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_LICENCE_FILES = "LICENSE*"


@dataclass(frozen=True)
class Licence:
    """What may be done with a model, in short. The licence itself decides."""

    name: str
    summary: str
    must_accept: bool = False
    """Whether the model is downloaded only for who says that the licence is accepted."""


@dataclass(frozen=True)
class Part:
    """One repository, and the folder that its files go to."""

    repo: str
    folder: str
    """Relative to the folder of all models, with slashes."""
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """What can be asked for by name."""

    name: str
    title: str
    tasks: tuple[str, ...]
    parts: tuple[Part, ...]
    licence: Licence
    mount: str
    """The folder to mount as /models of the container that serves it."""
    note: str = ""
    """What else who downloads it should know: a sentence."""


_OPEN_RAIL = Licence(
    "CreativeML Open RAIL++-M",
    "Commercial use is allowed; the uses that its attachment A lists are not, and whoever you pass the weights on to "
    "must be bound to the same.",
)

MODELS = (
    Model(
        name="stable-diffusion-xl",
        title="Stable Diffusion XL base 1.0, fp16",
        tasks=("text-to-image", "image-to-image"),
        parts=(
            Part(
                "stabilityai/stable-diffusion-xl-base-1.0",
                "text-to-image/stable-diffusion-xl",
                # The VAE in fp32: in fp16 it paints black pictures.
                ("*.json", "*.txt", "*.fp16.safetensors", "vae/diffusion_pytorch_model.safetensors", _LICENCE_FILES),
                ("vae_1_0/*",),
            ),
        ),
        licence=_OPEN_RAIL,
        mount="text-to-image/stable-diffusion-xl",
    ),
    Model(
        name="stable-diffusion-xl-fp32",
        title="Stable Diffusion XL base 1.0, fp32: twice the size, for CPUs",
        tasks=("text-to-image", "image-to-image"),
        parts=(
            Part(
                "stabilityai/stable-diffusion-xl-base-1.0",
                "text-to-image/stable-diffusion-xl-fp32",
                (
                    "*.json",
                    "*.txt",
                    "text_encoder/model.safetensors",
                    "text_encoder_2/model.safetensors",
                    "unet/diffusion_pytorch_model.safetensors",
                    "vae/diffusion_pytorch_model.safetensors",
                    _LICENCE_FILES,
                ),
                ("vae_1_0/*",),
            ),
        ),
        licence=_OPEN_RAIL,
        mount="text-to-image/stable-diffusion-xl-fp32",
    ),
    Model(
        name="xtts-v2",
        title="XTTS v2",
        tasks=("text-to-speech",),
        parts=(
            Part(
                "coqui/XTTS-v2",
                "text-to-speech/xtts-v2",
                ("config.json", "vocab.json", "model.pth", "speakers_xtts.pth", _LICENCE_FILES),
            ),
        ),
        licence=Licence(
            "Coqui Public Model License 1.0 (CPML)",
            "NON-COMMERCIAL USE ONLY, of the model and of the speech that it makes.",
            must_accept=True,
        ),
        mount="text-to-speech/xtts-v2",
    ),
    Model(
        name="whisper-large-v3",
        title="Whisper large-v3",
        tasks=("speech-to-text",),
        parts=(
            Part(
                "openai/whisper-large-v3",
                "speech-to-text/whisper-large-v3",
                ("config.json", "generation_config.json", "model.safetensors", _LICENCE_FILES),
            ),
        ),
        licence=Licence("Apache-2.0 (OpenAI's own release of the weights: MIT)", "Commercial use is allowed."),
        mount="speech-to-text/whisper-large-v3",
    ),
    Model(
        name="faster-whisper-large-v3",
        title="Whisper large-v3 for faster-whisper: two to four times as fast, and it can stream",
        tasks=("speech-to-text",),
        parts=(
            Part(
                "Systran/faster-whisper-large-v3",
                "speech-to-text/faster-whisper-large-v3",
                (
                    "config.json",
                    "model.bin",
                    "tokenizer.json",
                    "preprocessor_config.json",
                    "vocabulary.*",
                    _LICENCE_FILES,
                ),
            ),
        ),
        licence=Licence("MIT", "Commercial use is allowed."),
        mount="speech-to-text/faster-whisper-large-v3",
    ),
    Model(
        name="blip-2",
        title="BLIP-2 OPT 2.7b: captions",
        tasks=("image-to-text",),
        parts=(
            Part(
                "Salesforce/blip2-opt-2.7b",
                "image-to-text/caption",
                ("*.json", "*.txt", "model-*.safetensors", _LICENCE_FILES),
            ),
        ),
        licence=Licence(
            "MIT",
            "But the OPT language model inside has Meta's own licence, which EXCLUDES COMMERCIAL USE: read it first.",
        ),
        mount="image-to-text",
    ),
    Model(
        name="paddleocr",
        title="PaddleOCR, PP-OCRv6 small: reads text in pictures",
        tasks=("image-to-text",),
        parts=(
            Part(
                "PaddlePaddle/PP-OCRv6_small_det_onnx",
                "image-to-text/ocr/det",
                ("inference.onnx", "inference.yml", _LICENCE_FILES),
            ),
            Part(
                "PaddlePaddle/PP-OCRv6_small_rec_onnx",
                "image-to-text/ocr/rec",
                ("inference.onnx", "inference.yml", _LICENCE_FILES),
            ),
        ),
        licence=Licence("Apache-2.0", "Commercial use is allowed."),
        mount="image-to-text",
        note="Not verified: the names of these two repositories and of their files are taken from public projects that "
        "use them.",
    ),
)

DEFAULTS = {
    "text-to-image": ("stable-diffusion-xl",),
    "text-to-speech": ("xtts-v2",),
    "speech-to-text": ("whisper-large-v3",),
    "image-to-image": ("stable-diffusion-xl",),
    "image-to-text": ("blip-2", "paddleocr"),
}
"""The models of a task that is asked for by its name, in the order of their ports."""


def names() -> tuple[str, ...]:
    """All that can be asked for: tasks and models."""
    return (*DEFAULTS, *(model.name for model in MODELS))


def choose(wanted: Iterable[str]) -> tuple[Model, ...]:
    """The models that some names stand for, each once, in the order of MODELS; of no name, those of all tasks.

    Raises:
        ValueError: Naming what is neither a task nor a model.
    """
    asked = tuple(wanted)
    unknown = [name for name in asked if name not in names()]
    if unknown:
        raise ValueError(f"no task or model is called {', '.join(unknown)}: choose from {', '.join(names())}")
    chosen = {model for name in asked or DEFAULTS for model in DEFAULTS.get(name, (name,))}
    return tuple(model for model in MODELS if model.name in chosen)


def shared_weights(wanted: Iterable[str]) -> str:
    """A sentence about tasks that use the same files, if such are asked for; else nothing."""
    asked = tuple(wanted) or tuple(DEFAULTS)
    if "image-to-image" not in asked:
        return ""
    return (
        "image-to-image uses the weights of text-to-image: they are fetched once, into text-to-image/, and one "
        "container serves both tasks."
    )
