"""Finds a Whisper model in a folder and reads it.

Two layouts are known:

    *.pt                                     a checkpoint as OpenAI publishes it, one file
    config.json + model.safetensors          as openai/whisper-* are on the Hugging Face hub (the weights may be
    [+ generation_config.json]               split: model.safetensors.index.json)

The second is converted in memory: the tensors are the same, their names are not.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import whisper
from safetensors import safe_open
from whisper.model import ModelDimensions

from aiservice_runtime import FatalError

LAYOUT = (
    "expected an OpenAI checkpoint (one *.pt file), or config.json with model_type whisper and model.safetensors "
    "(the layout of openai/whisper-* on the Hugging Face hub)"
)

# Hugging Face's names to OpenAI's, in the order in which they are replaced.
_RENAMES = [
    (r"^model\.", ""),
    (r"^(encoder|decoder)\.layers\.", r"\1.blocks."),
    (r"\.self_attn_layer_norm\.", ".attn_ln."),
    (r"\.encoder_attn_layer_norm\.", ".cross_attn_ln."),
    (r"\.final_layer_norm\.", ".mlp_ln."),
    (r"\.self_attn\.", ".attn."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".out."),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.2."),
    (r"^encoder\.layer_norm\.", "encoder.ln_post."),
    (r"^decoder\.layer_norm\.", "decoder.ln."),
    (r"^(encoder|decoder)\.embed_positions\.weight$", r"\1.positional_embedding"),
    (r"^decoder\.embed_tokens\.", "decoder.token_embedding."),
]
# The same matrix as the token embedding, under a second name.
_TIED = "proj_out.weight"


@dataclass(frozen=True)
class Weights:
    """A model as it was read: its shape, and its tensors under OpenAI's names."""

    dims: ModelDimensions
    tensors: dict[str, torch.Tensor]
    alignment_heads: torch.Tensor | None
    """(layers, heads) of bool: the heads of the decoder whose attention follows time; None when not known."""


def read_weights(folder: Path, *, device: str = "cpu", dtype: torch.dtype | None = None) -> Weights:
    """Reads the model in a folder onto a device, each tensor out of the mapped file, in `dtype` or that of the file.

    Raises FatalError with a sentence when there is none, or it is damaged.
    """
    checkpoints = sorted(folder.glob("*.pt"))
    try:
        if _is_hugging_face(folder):
            return _read_hugging_face(folder, device, dtype)
        if len(checkpoints) == 1:
            return _read_checkpoint(checkpoints[0], device, dtype)
    except (FatalError, MemoryError, torch.OutOfMemoryError):  # no room for a model does not mean that it is damaged
        raise
    except Exception as error:
        raise FatalError(
            f"The Whisper model in {folder} cannot be read ({type(error).__name__}): it is damaged or not Whisper."
        ) from error
    if checkpoints:
        raise FatalError(f"More than one checkpoint in {folder}: {', '.join(path.name for path in checkpoints)}.")
    raise FatalError(f"No Whisper model in {folder}: {LAYOUT}.")


def _is_hugging_face(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and _json(config).get("model_type") == "whisper"


def _read_checkpoint(path: Path, device: str, dtype: torch.dtype | None) -> Weights:
    checkpoint = torch.load(path, map_location=device, weights_only=True, mmap=True)
    dims = ModelDimensions(**checkpoint["dims"])
    tensors = {name: tensor.to(dtype=dtype) for name, tensor in checkpoint["model_state_dict"].items()}
    return Weights(dims, tensors, _published_heads(path.stem, dims))


def _published_heads(name: str, dims: ModelDimensions) -> torch.Tensor | None:
    """Returns the alignment heads of a checkpoint that has the name under which OpenAI publishes it."""
    dump = whisper._ALIGNMENT_HEADS.get(name)  # noqa: SLF001 - the package keeps them nowhere else
    if dump is None:
        return None
    heads = np.frombuffer(gzip.decompress(base64.b85decode(dump)), dtype=bool).copy()
    return torch.from_numpy(heads).reshape(dims.n_text_layer, dims.n_text_head)


def _read_hugging_face(folder: Path, device: str, dtype: torch.dtype | None) -> Weights:
    config = _json(folder / "config.json")
    dims = ModelDimensions(
        n_mels=config["num_mel_bins"],
        n_audio_ctx=config["max_source_positions"],
        n_audio_state=config["d_model"],
        n_audio_head=config["encoder_attention_heads"],
        n_audio_layer=config["encoder_layers"],
        n_vocab=config["vocab_size"],
        n_text_ctx=config["max_target_positions"],
        n_text_state=config["d_model"],
        n_text_head=config["decoder_attention_heads"],
        n_text_layer=config["decoder_layers"],
    )
    tensors = {
        openai_name(name): tensor.to(dtype=dtype)
        for path in _safetensors(folder)
        for name, tensor in _opened(path, device)
        if name != _TIED
    }
    return Weights(dims, tensors, _configured_heads(folder / "generation_config.json", dims))


def _opened(path: Path, device: str) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(path, framework="pt", device=device) as file:
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            yield name, file.get_tensor(name)


def _safetensors(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in sorted(set(_json(index)["weight_map"].values()))]
    single = folder / "model.safetensors"
    if not single.is_file():
        raise FatalError(f"No weights beside {folder / 'config.json'}: {LAYOUT}.")
    return [single]


def _configured_heads(path: Path, dims: ModelDimensions) -> torch.Tensor | None:
    pairs = _json(path).get("alignment_heads") if path.is_file() else None
    if not pairs:
        return None
    heads = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool)
    for layer, head in pairs:
        heads[layer, head] = True
    return heads


def openai_name(name: str) -> str:
    """Returns OpenAI's name of a tensor that Hugging Face's Whisper calls `name`."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
