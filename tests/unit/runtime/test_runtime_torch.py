"""What the engines on torch share, without torch: an engine may serve models of other libraries alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from aiservice_runtime import Fault, RuntimeSettings
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


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB.", Fault.OUT_OF_MEMORY),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", Fault.OUT_OF_MEMORY),
        ("CUDA error: an illegal memory access was encountered", Fault.DEVICE),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`", Fault.DEVICE),
        ("cuDNN error: CUDNN_STATUS_MAPPING_ERROR", Fault.DEVICE),
        ("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a tensor.", Fault.REQUEST),
        ("cuDNN error: CUDNN_STATUS_BAD_PARAM", Fault.REQUEST),
        ("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm(...)`", Fault.REQUEST),
        ("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmul(...)`", Fault.REQUEST),
        ("CUDNN_STATUS_BAD_PARAM, then CUDA error: device-side assert triggered", Fault.DEVICE),
        ("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", Fault.REQUEST),
    ],
)
def test_a_call_that_a_library_refuses_is_no_lost_device(told: str, fault: Fault) -> None:
    assert torchless().fault(RuntimeError(told)) is fault
