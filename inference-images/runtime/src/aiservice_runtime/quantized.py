"""Weights of linear layers in a byte or in four bits a number; what is computed stays in the precision around them.

int8, by torchao: each row of a matrix has a scale. int4, by bitsandbytes: NF4 (Dettmers et al. 2023, "QLoRA"), 16
values spaced as those of a normal distribution are, with a scale for each 64 numbers. Both are multiplied out when they
are used: less memory, for some exactness. Only engines on torch import this module: torch and the two are theirs, not
the runtime's.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

QUANTIZED = frozenset({"int8", "int4"})
"""Precisions of weights that are quantized after they were read, in whatever precision is around them."""

_INT4_LIBRARY = "bitsandbytes"
# transformers' T5 turns what it computes into the type of this layer's weights, which would be bytes.
_NOT_INT4 = (".wo",)
# bitsandbytes computes with rows of whole blocks on CPUs, some at a time. All large layers of published models are so.
_BLOCK = 64
_ROWS = 32


@contextmanager
def bitsandbytes_hidden() -> Iterator[None]:
    """Keeps what is imported within from importing bitsandbytes, as peft does wherever it is installed.

    That takes a second or more, and only int4 needs it, which needs nothing of peft for it.
    """
    hidden = sys.modules.setdefault(_INT4_LIBRARY, None) is None  # type: ignore[arg-type]  # what the import system takes
    try:
        yield
    finally:
        if hidden:
            del sys.modules[_INT4_LIBRARY]


def quantize(modules: Iterable[Any], precision: str, *, but: Collection[str] = ()) -> None:
    """Changes the linear layers of these torch modules in place, one after the other.

    On the CPU, before the modules go to their device, so that the device never holds both. Layers whose name ends with
    one of `but` stay as they are.
    """
    change = {"int8": _to_int8, "int4": _to_int4}[precision]
    for module in modules:
        change(module, tuple(but))


def _to_int8(module: Any, but: tuple[str, ...]) -> None:
    # It warns of CUDA kernels that do not load, of which weight-only int8 needs none.
    logging.getLogger("torchao").setLevel(logging.ERROR)
    torch = importlib.import_module("torch")
    quantization = importlib.import_module("torchao.quantization")

    def chosen(layer: Any, name: str) -> bool:
        return isinstance(layer, torch.nn.Linear) and not name.endswith(but)

    quantization.quantize_(module, quantization.Int8WeightOnlyConfig(), filter_fn=chosen)


def _to_int4(module: Any, but: tuple[str, ...]) -> None:
    # It warns that it found no kernels on a hub, for which it does not ask unless another package is there.
    logging.getLogger(_INT4_LIBRARY).setLevel(logging.ERROR)
    bitsandbytes = importlib.import_module(_INT4_LIBRARY)
    for parent, name, layer in list(_linear_layers(module, but + _NOT_INT4)):
        if layer.in_features % _BLOCK or layer.out_features % _ROWS:
            continue
        weights = layer.weight
        small = bitsandbytes.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=False, compute_dtype=weights.dtype, device="meta"
        )
        small.weight = bitsandbytes.nn.Params4bit(weights.data, blocksize=_BLOCK, quant_type="nf4", module=small)
        small.bias = layer.bias
        # Params4bit quantizes when it is moved, also to where it is.
        setattr(parent, name, small.to("cpu").train(layer.training))


def _linear_layers(module: Any, but: tuple[str, ...]) -> Iterator[tuple[Any, str, Any]]:
    """Gives each plain linear layer with the module that holds it, and its name there."""
    linear = importlib.import_module("torch").nn.Linear
    for path, parent in module.named_modules():
        for name, layer in parent.named_children():
            if type(layer) is linear and not f"{path}.{name}".endswith(but):
                yield parent, name, layer
