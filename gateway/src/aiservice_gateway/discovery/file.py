"""Services from a YAML file, for a machine without Kubernetes.

services:
  - name: whisper
    tasks: [speech-to-text]
    url: http://127.0.0.1:7862
  - name: sdxl
    tasks: [text-to-image, image-to-image]
    endpoints: {text-to-image: http://gpu1:7860, image-to-image: http://gpu1:7863}
    names: [stable-diffusion]
    default: true
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, ValidationError, model_validator

from aiservice_api.tasks import Task
from aiservice_gateway.errors import SettingsError
from aiservice_gateway.models import Service
from aiservice_gateway.services.registry import Registry

_log = logging.getLogger(__name__)

_SOURCE = "file"
_LOOK_SECONDS = 1.0


class FileService(BaseModel):
    """One service of the file."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    tasks: Annotated[list[Task], Field(min_length=1)]
    url: HttpUrl | None = None
    """Base URL of every task that `endpoints` does not name."""
    endpoints: dict[Task, HttpUrl] = {}
    """Base URL by task."""
    names: tuple[str, ...] = ()
    default: bool = False
    model: str | None = None
    """The model's name, for usage records."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        for task in self.tasks:
            if self.url is None and task not in self.endpoints:
                raise ValueError(f"set url, or endpoints.{task}")
        return self

    def to_service(self) -> Service:
        """What the registry keeps. A file says nothing of readiness: the service is asked when it is needed."""
        return Service(
            name=self.name,
            namespace="",
            tasks=tuple(self.tasks),
            endpoints={task: str(self.endpoints.get(task, self.url)).rstrip("/") for task in self.tasks},
            aliases=self.names,
            default=self.default,
            model=self.model,
        )


class ServicesFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    services: list[FileService]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [service.name for service in self.services]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two services have the name {min(twice)}")
        return self


def read_services(path: Path) -> list[Service]:
    """Reads the file.

    Raises:
        SettingsError: it cannot be read, or is wrong; the message says where.
    """
    try:
        document = yaml.safe_load(path.read_text())
        return [service.to_service() for service in ServicesFile.model_validate(document).services]
    except OSError as error:
        raise SettingsError(f"GATEWAY_SERVICES_FILE: {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"GATEWAY_SERVICES_FILE: {path} is not YAML: {error}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise SettingsError(f"GATEWAY_SERVICES_FILE: {path}: {where}: {problem['msg']}") from error


class FileDiscovery:
    """Follows the file: a change counts within a second; a mistake in it is logged, and the last good one stays."""

    def __init__(self, path: Path, registry: Registry) -> None:
        """Reads the file once.

        Raises:
            SettingsError: as `read_services`.
        """
        self._path = path
        self._registry = registry
        self._seen = self._fingerprint()
        self._good = True
        registry.replace(_SOURCE, read_services(path))

    @property
    def synced(self) -> bool:
        """The file was read."""
        return True

    @property
    def connected(self) -> bool:
        """Whether the file, as it is now, could be read."""
        return self._good

    async def run(self) -> None:
        """Looks for changes until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            fingerprint = self._fingerprint()
            if fingerprint != self._seen:
                self._seen = fingerprint
                self._reload()

    def _reload(self) -> None:
        try:
            self._registry.replace(_SOURCE, read_services(self._path))
        except SettingsError as error:
            _log.error("The changed list of services is not used: %s", error)
            self._good = False
        else:
            _log.info("The list of services has changed")
            self._good = True

    def _fingerprint(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_ino)
