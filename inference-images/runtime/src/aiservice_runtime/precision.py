"""Which number format the weights get: the one asked for, or with `auto` the best that fits into the device's memory.

settings and engine -> candidates() -> choose(model, free memory) -> Choice
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from aiservice_runtime.errors import FatalError
from aiservice_runtime.settings import RuntimeSettings
from aiservice_runtime.weight_files import Parameters

GIB = 1024**3
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
# In int4: half a byte, and of a scale for each 64 numbers two bytes at the most.
_MATRIX_BYTES = {"int8": Fraction(1), "int4": Fraction(17, 32)}


@dataclass(frozen=True)
class Model:
    """What is known of a model before it is loaded."""

    parameters: Parameters
    """Of all its parts."""
    working: int
    """Bytes that one request of usual size takes beside the weights."""
    largest: Parameters | None = None
    """Of its largest part, where parts can wait in the memory of the host; None: it cannot be taken apart."""


@dataclass(frozen=True)
class Choice:
    """How the weights are loaded."""

    precision: str
    offload: bool = False
    """Whether parts wait in the memory of the host until they are needed."""
    needed: int | None = None
    """Bytes of the device's memory, weights and work; None: nothing was compared."""


def candidates(settings: RuntimeSettings, supported: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Returns what may be loaded, preferred first: what was asked for, or all that `auto` chooses from.

    `supported` is what the engine can do by device, best first. On a GPU `auto` is the first, bf16 for weights that
    are stored so, or int8 where nothing else fits; fp32 and int4 are for those who ask for them.
    Raises FatalError, naming what is possible, when what was asked for is not.
    """
    possible = supported[settings.device]
    if settings.precision == "auto":
        others = [name for name in possible[1:] if settings.device == "cuda" and name in {"bf16", "int8"}]
        return (possible[0], *others)
    if settings.precision not in possible:
        raise FatalError(
            f"Precision {settings.precision} is not possible here on {settings.device}; "
            f"set precision to auto or {' or '.join(possible)}."
        )
    return (settings.precision,)


def choose(
    wanted: Sequence[str], model: Model | None, free: int | None, *, bf16: bool = False, offload: bool = False
) -> Choice:
    """Returns the first of `wanted` with which the model fits into the `free` bytes of the device.

    Args:
        wanted: What candidates() gave.
        model: None: not known, and nothing is compared.
        free: None: it is not to be compared, as on a CPU, where the kernel decides.
        bf16: Whether the device computes in it as fast as in fp16.
        offload: Whether parts may wait in the memory of the host, when all of them do not fit.

    Raises:
        FatalError: It does not fit in any of them; with the numbers, and what to do.
    """
    ordered = _ordered(wanted, model, bf16=bf16)
    if model is None:
        return Choice(ordered[0])
    if free is None:
        return Choice(ordered[0], needed=size(model.parameters, ordered[0]) + model.working)
    choices = [Choice(name, needed=size(model.parameters, name) + model.working) for name in ordered]
    if offload and model.largest is not None:
        choices += [Choice(name, True, size(model.largest, name) + model.working) for name in ordered]
    for choice in choices:
        if choice.needed is not None and choice.needed <= free:
            return choice
    raise FatalError(_does_not_fit(min(choices, key=lambda choice: choice.needed or 0), model, free, offload))


def size(parameters: Parameters, precision: str) -> int:
    """Returns the bytes of the weights in a number format; quantized, what is no matrix keeps two bytes a number."""
    if precision in _MATRIX_BYTES:
        return math.ceil(_MATRIX_BYTES[precision] * parameters.matrices) + 2 * parameters.others
    return _BYTES[precision] * parameters.count


def _ordered(wanted: Sequence[str], model: Model | None, *, bf16: bool) -> list[str]:
    """Without the half precision that fits the weights less: values of bf16 can be beyond the range of fp16."""
    if "fp16" not in wanted or "bf16" not in wanted:
        return list(wanted)
    stored = model is not None and model.parameters.bf16
    unfit = "fp16" if bf16 and stored else "bf16"
    order = sorted(wanted, key=lambda name: name == "int8")
    return [name for name in order if name != unfit]


def _does_not_fit(least: Choice, model: Model, free: int, offload: bool) -> str:
    part = "largest part of the model" if least.offload else "model"
    remedy = ", or set offload to auto" if model.largest is not None and not offload else ""
    return (
        f"The {part} needs {_gib(least.needed or 0)} GiB of the device's memory in {least.precision} "
        f"({_gib(model.working)} GiB of it to work in), and {_gib(free)} GiB are free: use a GPU with more memory, "
        f"stop what else uses this one, or take a smaller model{remedy}."
    )


def _gib(amount: int) -> str:
    return f"{amount / GIB:.1f}".removesuffix(".0")
