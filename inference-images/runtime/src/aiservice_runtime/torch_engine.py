"""What the engines on torch have in common. torch itself is imported when an engine starts, never by this package."""

from __future__ import annotations

import gc
import importlib
import logging
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from aiservice_runtime.engine import Engine, Fault, Memory
from aiservice_runtime.errors import FatalError
from aiservice_runtime.precision import Choice, Model, candidates, choose
from aiservice_runtime.settings import RuntimeSettings

log = logging.getLogger(__name__)

# Libraries below torch say it in words only; "can't allocate memory" is that of torch's allocator on CPUs.
_NO_ROOM = re.compile(r"out of memory|can't allocate memory|_STATUS_ALLOC_FAILED", re.IGNORECASE)
# After these, every later call on the device fails as well (CUDA Runtime API, "sticky" errors).
_LOST = re.compile(
    r"CUDA error|CUDA failed with error|device-side assert|CUDA driver error|CUBLAS_STATUS_|CUDNN_STATUS_|cuDNN error"
)
# With these a library refuses one call because of its arguments, mostly the shape of one request; the device is fine.
_REFUSED = re.compile(r"((CUDA|cuDNN) error: )?CU(BLAS|DNN)_STATUS_(NOT_SUPPORTED|BAD_PARAM|INVALID_VALUE)")


class TorchEngine(Engine):
    """Chooses precision and threads, tells torch's errors apart, and moves the weights for sleep and wake."""

    def __init__(
        self,
        settings: RuntimeSettings,
        precisions: Mapping[str, Sequence[str]],
        *,
        read_free: Callable[[], int] | None = None,
    ) -> None:
        """`precisions` are those that the engine can do by device, best first.

        `read_free` returns the free bytes of the GPU's memory; CUDA is asked when it is not given.
        Raises FatalError when the precision asked for is not among them.
        """
        self._candidates = candidates(settings, precisions)
        self._automatic = settings.precision == "auto"
        self._precision = self._candidates[0]
        self._device = settings.device
        self._threads = settings.threads
        self._read_free = read_free or self._free_on_gpu
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

    def settle_precision(self, model: Model | None, *, offload: bool = False) -> Choice:
        """Chooses the precision to load in, and logs it with its numbers. Call it in load(), before weights are read.

        `model` is what its files tell; `offload` whether parts may wait in the memory of the host.
        Raises FatalError when the GPU has no room for it in any precision that may be chosen.
        """
        free = self._read_free() if self._device == "cuda" else None
        # A precision that was asked for is tried: what is known of the model is an estimate.
        compared = model if self._automatic or offload else None
        choice = choose(self._candidates, compared, free, bf16=self._computes_bf16(), offload=offload)
        self._precision = choice.precision
        parameters = model.parameters.count if model is not None else None
        fields = {"device": self._device, "precision": choice.precision, "offload": choice.offload}
        fields |= {"parameters": parameters, "needed_bytes": choice.needed, "free_bytes": free}
        log.info("precision chosen", extra={"fields": fields})
        return choice

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
        told = _REFUSED.sub("", str(error))
        if _NO_ROOM.search(told):
            return Fault.OUT_OF_MEMORY
        return Fault.DEVICE if _LOST.search(told) else Fault.REQUEST

    def recover(self) -> None:
        """Frees what nothing refers to any more, in Python and in torch's cache of device memory."""
        gc.collect()
        if self._device == "cuda" and self._torch is not None:  # an engine may serve models without torch alone
            self._torch.cuda.empty_cache()

    def memory(self) -> Memory | None:
        """Returns what torch has reserved of the GPU, and what is free; None on a CPU or before the first use."""
        if self._device != "cuda" or self._torch is None or not self._torch.cuda.is_initialized():
            return None
        free, _ = self._torch.cuda.mem_get_info()
        return Memory(used=self._torch.cuda.memory_reserved(), free=free)

    def _free_on_gpu(self) -> int:
        free, _ = self._torch.cuda.mem_get_info()
        return int(free)

    def _computes_bf16(self) -> bool:
        """Whether the GPU has bf16 itself: from Ampere on (compute capability 8.0)."""
        if self._device != "cuda" or self._torch is None:
            return False
        return bool(self._torch.cuda.is_bf16_supported(including_emulation=False))

    def _move(self, device: str) -> None:
        for module in self.modules():
            module.to(device)
