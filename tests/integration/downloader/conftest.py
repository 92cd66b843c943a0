"""A volume, and servers to fill it from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.downloads import Job
from support.file_server import FileServer, serving
from support.hub_server import HubServer


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer()) as running:
        yield running


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serving(HubServer()) as running:
        yield running
