"""How many parameters a model has, by its files alone: before a library is asked to read them.

safetensors files begin with the length of a JSON header, which names every tensor with its shape
(https://github.com/huggingface/safetensors#format); of other files only the size is known.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# The format's own limit.
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Parameters:
    """Counts of numbers."""

    matrices: int = 0
    """In matrices of linear layers, which int8 and int4 are for."""
    others: int = 0
    """In embeddings, convolutions, norms and biases, which stay as they are."""
    bf16: bool = False
    """Whether most are stored in bf16, which they were trained in then."""

    @property
    def count(self) -> int:
        """All of them."""
        return self.matrices + self.others

    def __add__(self, other: Parameters) -> Parameters:
        larger = self if self.count >= other.count else other
        return Parameters(self.matrices + other.matrices, self.others + other.others, larger.bf16)


def in_safetensors(paths: Iterable[Path], *, quantized: bool = True) -> Parameters:
    """Returns the parameters of these files together; `quantized` says whether int8 and int4 are for them at all.

    Raises ValueError or OSError when one is no safetensors file.
    """
    total = Parameters()
    for path in paths:
        total += _of_file(path, quantized=quantized)
    return total


def by_size(paths: Iterable[Path], *, bytes_each: int = 2) -> Parameters:
    """Returns the parameters of files that hold `bytes_each` for a number, nearly all of them in matrices."""
    return Parameters(matrices=sum(path.stat().st_size for path in paths) // bytes_each)


def _of_file(path: Path, *, quantized: bool) -> Parameters:
    matrices = others = bf16 = 0
    for name, shape, kind in _tensors(path):
        count = math.prod(shape)
        bf16 += count * (kind == "BF16")
        if quantized and len(shape) == 2 and name.endswith(".weight") and "embed" not in name:
            matrices += count
        else:
            others += count
    return Parameters(matrices, others, 2 * bf16 > matrices + others)


def _tensors(path: Path) -> list[tuple[str, list[int], str]]:
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= _LONGEST_HEADER:
            raise ValueError(f"{path.name} is no safetensors file")
        header = json.loads(file.read(length))
    return [(name, entry["shape"], entry["dtype"]) for name, entry in header.items() if name != "__metadata__"]
