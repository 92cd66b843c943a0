"""Weights of linear layers in one byte a number, by torchao; what is computed stays in the precision around them.

Weight-only: each row of a matrix has a scale, and is multiplied out when it is used. Half the memory of fp16, for some
speed. Only engines on torch import this module: torch and torchao are theirs, not the runtime's.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Collection, Iterable
from typing import Any


def quantize(modules: Iterable[Any], *, but: Collection[str] = ()) -> None:
    """Changes the linear layers of these torch modules in place, one after the other.

    On the CPU, before the modules go to their device, so that the device never holds both. Layers whose name ends with
    one of `but` stay as they are.
    """
    # It warns of CUDA kernels that do not load, of which weight-only int8 needs none.
    logging.getLogger("torchao").setLevel(logging.ERROR)
    torch = importlib.import_module("torch")
    quantization = importlib.import_module("torchao.quantization")

    def chosen(module: Any, name: str) -> bool:
        return isinstance(module, torch.nn.Linear) and not name.endswith(tuple(but))

    for module in modules:
        quantization.quantize_(module, quantization.Int8WeightOnlyConfig(), filter_fn=chosen)
