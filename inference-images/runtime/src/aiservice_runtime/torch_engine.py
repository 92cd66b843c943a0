"""What the engines on torch have in common. torch itself is imported when an engine starts, never by this package."""

from __future__ import annotations

import gc
import importlib
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiservice_runtime.engine import Engine, Fault, Memory
from aiservice_runtime.errors import FatalError
from aiservice_runtime.precision import choose_precision
from aiservice_runtime.settings import RuntimeSettings

# Libraries below torch say it in words only; "can't allocate memory" is that of torch's allocator on CPUs.
_NO_ROOM = re.compile(r"out of memory|can't allocate memory|_STATUS_ALLOC_FAILED", re.IGNORECASE)
# After these, every later call on the device fails as well (CUDA Runtime API, "sticky" errors).
_LOST = re.compile(
    r"CUDA error|CUDA failed with error|device-side assert|CUDA driver error|CUBLAS_STATUS_|CUDNN_STATUS_|cuDNN error"
)


class TorchEngine(Engine):
    """Chooses precision and threads, tells torch's errors apart, and moves the weights for sleep and wake."""

    def __init__(self, settings: RuntimeSettings, precisions: Mapping[str, Sequence[str]]) -> None:
        """`precisions` are those that the engine can do by device, best first.

        Raises FatalError when the one asked for is not among them.
        """
        self._precision = choose_precision(settings, precisions)
        self._device = settings.device
        self._threads = settings.threads
        self._torch: Any = None

    @abstractmethod
    def modules(self) -> Iterable[Any]:
        """Returns the torch modules that hold the weights; none before load()."""

    def import_libraries(self) -> None:
        """Imports torch. Raises FatalError when the GPU that it needs is not there."""
        self._torch = importlib.import_module("torch")
        self._torch.set_num_threads(self._threads)
        if self._device == "cuda" and not self._torch.cuda.is_available():
            raise FatalError(
                "The device is cuda, but no GPU is to be seen: check spec.profile, the node and its driver."
            )

    def sleep(self) -> None:
        """Moves the weights to the memory of the host. On a CPU they are there already, and nothing is freed."""
        self._move("cpu")
        self.recover()

    def wake(self) -> None:
        """Moves the weights back."""
        self._move(self._device)

    def fault(self, error: Exception) -> Fault:
        """Tells running out of memory, and errors after which the device is lost, from all others."""
        if isinstance(error, MemoryError):
            return Fault.OUT_OF_MEMORY
        if not isinstance(error, RuntimeError):  # torch's own errors are RuntimeErrors, OutOfMemoryError too
            return Fault.REQUEST
        if _NO_ROOM.search(str(error)):
            return Fault.OUT_OF_MEMORY
        return Fault.DEVICE if _LOST.search(str(error)) else Fault.REQUEST

    def recover(self) -> None:
        """Frees what nothing refers to any more, in Python and in torch's cache of device memory."""
        gc.collect()
        if self._device == "cuda":
            self._torch.cuda.empty_cache()

    def memory(self) -> Memory | None:
        """Returns what torch has reserved of the GPU, and what is free; None on a CPU or before the first use."""
        if self._device != "cuda" or self._torch is None or not self._torch.cuda.is_initialized():
            return None
        free, _ = self._torch.cuda.mem_get_info()
        return Memory(used=self._torch.cuda.memory_reserved(), free=free)

    def _move(self, device: str) -> None:
        for module in self.modules():
            module.to(device)
