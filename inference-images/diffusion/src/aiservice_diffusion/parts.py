"""How large the parts of a diffusers pipeline are, by its files alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from aiservice_runtime.weight_files import Parameters, in_safetensors

VAE = "vae"
"""The part that is not quantized: it is small, nearly all convolutions, and every pixel goes through it."""


def parameters_of(folder: Path) -> list[Parameters]:
    """Returns the parameters of each part that has weights; none where the folder cannot be read."""
    try:
        names = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        return [
            in_safetensors(files, quantized=name != VAE) for name in names if (files := list(_files(folder / name)))
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _files(part: Path) -> Iterator[Path]:
    """The files of one copy of the weights: a part may hold a full one and one in fp16 (a variant) side by side."""
    found = sorted(part.glob("*.safetensors"))
    half = [path for path in found if ".fp16" in path.name]
    yield from half or (path for path in found if "non_ema" not in path.name)
