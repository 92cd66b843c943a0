"""A tiny SDXL with random weights, loaded once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aiservice_diffusion.engine import DiffusionEngine
from aiservice_diffusion.settings import DiffusionSettings
from support.engines import load
from weights import tiny


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder."""
    folder = tmp_path_factory.mktemp("sdxl")
    tiny.sdxl(folder)
    return folder


@pytest.fixture(scope="session")
def engine(sdxl: Path) -> Iterator[DiffusionEngine]:
    """Serves it in a few steps."""
    loaded = DiffusionEngine(DiffusionSettings(model_dir=sdxl, default_steps=3))
    load(loaded)
    loaded.warm_up()
    yield loaded
    loaded.release()
