"""torch's own errors, raised from inside the model, and the weights' way to sleep and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from aiservice_runtime import Fault
from aiservice_speech_recognition.engine import SpeechEngine
from support.engines import ask


@pytest.fixture
def failing(engine: SpeechEngine) -> Iterator[Callable[[Exception], None]]:
    """Has the model's encoder raise an error on its next call."""
    model: Any = engine._transcriber
    encoder = model.model.encoder
    handles: list[Any] = []

    def fail_once(error: Exception) -> None:
        def hook(*_: Any) -> None:
            handles.pop().remove()
            raise error

        handles.append(encoder.register_forward_pre_hook(hook))

    yield fail_once
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), Fault.OUT_OF_MEMORY),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
            Fault.OUT_OF_MEMORY,
        ),
        (MemoryError(), Fault.OUT_OF_MEMORY),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), Fault.DEVICE),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), Fault.DEVICE),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), Fault.REQUEST),
        (ValueError("CUDA error"), Fault.REQUEST),
    ],
)
def test_errors_from_inside_the_model_are_told_apart(
    engine: SpeechEngine, failing: Callable[[Exception], None], speech: bytes, error: Exception, fault: Fault
) -> None:
    failing(error)
    with pytest.raises(type(error)) as caught:
        ask(engine, audio=speech)
    assert engine.fault(caught.value) is fault


def test_the_real_error_of_an_allocation_is_out_of_memory(engine: SpeechEngine) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert engine.fault(caught.value) is Fault.OUT_OF_MEMORY


def test_sleep_and_wake_keep_the_answers(engine: SpeechEngine, speech: bytes) -> None:
    before = ask(engine, audio=speech).body
    engine.sleep()
    engine.wake()
    assert ask(engine, audio=speech).body == before
    assert engine.memory() is None  # that of a CPU is the process's own
