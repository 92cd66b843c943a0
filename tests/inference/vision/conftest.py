"""PP-OCRv6 with its real weights, and a tiny BLIP-2, loaded once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aiservice_vision.engine import VisionEngine
from aiservice_vision.settings import VisionSettings
from support import models
from support.engines import load
from weights import tiny


@pytest.fixture(scope="session")
def weights() -> Path:
    return models.real_weights()


@pytest.fixture(scope="session")
def reader(weights: Path) -> Iterator[VisionEngine]:
    """Reads text only."""
    loaded = VisionEngine(VisionSettings(model_dir=weights))
    load(loaded)
    loaded.warm_up()
    yield loaded
    loaded.release()


@pytest.fixture(scope="session")
def blip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BLIP-2 at its root."""
    folder = tmp_path_factory.mktemp("blip2")
    tiny.blip2(folder)
    return folder


@pytest.fixture(scope="session")
def captioner(blip2: Path) -> Iterator[VisionEngine]:
    """Captions only."""
    loaded = VisionEngine(VisionSettings(model_dir=blip2, max_new_tokens=8))
    load(loaded)
    loaded.warm_up()
    yield loaded
    loaded.release()
