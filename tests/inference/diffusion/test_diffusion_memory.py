"""torch's real exception, raised from inside the pipeline by a batch that is too large, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from aiservice_diffusion.engine import DiffusionEngine
from aiservice_diffusion.settings import DiffusionSettings
from aiservice_runtime.batching import Job
from aiservice_runtime.device import Device
from aiservice_runtime.errors import OutOfMemoryError
from aiservice_runtime.metrics import Metrics

Submit = Callable[[int], Job]


@pytest.fixture
def device(sdxl: Path) -> Iterator[tuple[Device, DiffusionEngine, Metrics]]:
    """The device thread with the tiny SDXL, held back until the test lets it go on."""
    engine, metrics = DiffusionEngine(DiffusionSettings(model_dir=sdxl, default_steps=2)), Metrics()
    serving = Device(engine, metrics)
    serving.start(lambda: None)
    yield serving, engine, metrics
    serving.close()
    assert serving.join(60)


def with_room_for(engine: DiffusionEngine, images: int) -> None:
    """Has the UNet raise what CUDA's allocator raises when more images than this are computed at once."""

    def hook(_: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        rows = arguments[0].shape[0] // 2  # with guidance each image is there twice
        if rows > images:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {rows}.00 GiB")

    engine._loaded._from_text.unet.register_forward_pre_hook(hook)


def request(engine: DiffusionEngine, n: int, seed: int = 0) -> Job:
    [task] = [task for task in engine.tasks if task.name == "text-to-image"]
    return Job(task, task.prepare(task.body(prompt="a cup", size="64x64", n=n, seed=seed)))


def wait_until_loaded(device: Device) -> None:
    device.wake().result(timeout=120)  # carried out once the engine serves; it is awake already


def test_a_batch_without_room_is_computed_in_halves(device: tuple[Device, DiffusionEngine, Metrics]) -> None:
    serving, engine, metrics = device
    wait_until_loaded(serving)
    whole = request(engine, 4)
    serving.submit(whole)
    expected = whole.future.result(timeout=120).results
    with_room_for(engine, 2)
    again = request(engine, 4)
    serving.submit(again)
    results = again.future.result(timeout=120).results
    assert [abs(one.pixels - other.pixels).max() < 0.01 for one, other in zip(results, expected, strict=True)] == [
        True
    ] * 4
    count = metrics.registry.get_sample_value("aiservice_out_of_memory_total", {"task": "text-to-image"})
    assert count == 1
    # It is remembered: the next one does not run into it again.
    third = request(engine, 4)
    serving.submit(third)
    third.future.result(timeout=120)
    assert metrics.registry.get_sample_value("aiservice_out_of_memory_total", {"task": "text-to-image"}) == 1


def test_an_image_without_room_even_alone_fails_and_the_device_goes_on(
    device: tuple[Device, DiffusionEngine, Metrics],
) -> None:
    serving, engine, _ = device
    wait_until_loaded(serving)
    with_room_for(engine, 0)
    large = request(engine, 1)
    serving.submit(large)
    with pytest.raises(OutOfMemoryError):
        large.future.result(timeout=120)
    engine._loaded._from_text.unet._forward_pre_hooks.clear()
    small = request(engine, 1)
    serving.submit(small)
    assert small.future.result(timeout=120).results
