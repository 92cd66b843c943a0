"""Which number format the weights get: what was asked for, if the engine can do it on this device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiservice_runtime.errors import FatalError
from aiservice_runtime.settings import RuntimeSettings


def choose_precision(settings: RuntimeSettings, supported: Mapping[str, Sequence[str]]) -> str:
    """Returns the precision to load in; `auto` is the first that the engine supports on the device.

    Raises FatalError, naming what is possible, when the one asked for is not.
    """
    possible = supported[settings.device]
    if settings.precision == "auto":
        return possible[0]
    if settings.precision not in possible:
        raise FatalError(
            f"Precision {settings.precision} is not possible here on {settings.device}; "
            f"set precision to auto or {' or '.join(possible)}."
        )
    return settings.precision
