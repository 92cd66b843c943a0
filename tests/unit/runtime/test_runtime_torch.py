"""What the engines on torch share, without torch: an engine may serve models of other libraries alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiservice_runtime import RuntimeSettings
from aiservice_runtime.torch_engine import TorchEngine


class Torchless(TorchEngine):
    """An engine whose model folder holds nothing for torch, which it does not import then."""

    tasks = ()

    def modules(self) -> Iterable[Any]:
        return ()

    def import_libraries(self) -> None:
        """Imports nothing."""

    def load(self) -> None:
        """Loads nothing."""

    def warm_up(self) -> None:
        """Nothing to warm up."""

    def release(self) -> None:
        """Nothing to let go of."""


def torchless() -> Torchless:
    engine = Torchless(RuntimeSettings(device="cuda"), {"cpu": ("fp32",), "cuda": ("fp16", "fp32")})
    engine.import_libraries()
    engine.load()
    return engine


def test_without_torch_there_is_nothing_of_it_to_free() -> None:
    engine = torchless()
    engine.recover()
    engine.sleep()
    engine.wake()
    assert engine.memory() is None
