"""A machine without models, and a Hub that has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ai_models import Machine, fill
from support.file_server import serving
from support.hub_server import HubServer


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serving(HubServer()) as running:
        fill(running)
        yield running


@pytest.fixture
def machine(tmp_path: Path, hub: HubServer) -> Machine:
    return Machine(tmp_path, hub)
