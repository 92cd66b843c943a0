"""Torch modules without first values: drawing those of a large model takes longer than reading its weights.

Only engines on torch import this module: torch is theirs, not the runtime's.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

_IN_PLACE = {"normal_", "trunc_normal_", "uniform_"}


def parameters_unset() -> AbstractContextManager[Any]:
    """Leaves what is drawn or filled in within as the memory was: for modules whose every value is read afterwards.

    Their memory is not touched, so it is not taken either before there are values.
    """
    mode: Any = importlib.import_module("torch.overrides").TorchFunctionMode
    unset: AbstractContextManager[Any] = type("ParametersUnset", (mode,), {"__torch_function__": _skipping})()
    return unset


def _skipping(_: Any, function: Any, __: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
    given = dict(kwargs or {})
    name = getattr(function, "__name__", "")
    if getattr(function, "__module__", None) == "torch.nn.init" or name in _IN_PLACE:
        return given["tensor"] if "tensor" in given else args[0]
    if name == "randn":
        return importlib.import_module("torch").empty(*args, **given)
    return function(*args, **given)
