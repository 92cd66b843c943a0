"""A volume, and servers to fill it from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.downloads import Job
from support.file_server import FileServer, serving
from support.hub_server import HubServer
from support.registry_server import RegistryServer, registry_serving
from support.s3_server import S3Server, s3_serving


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


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_serving(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_serving(tmp_path_factory.mktemp("registry")) as running:
        yield running
