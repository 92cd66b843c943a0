"""Services and tenants from a YAML file, for a machine without Kubernetes. Tenants are AITenant objects.

services:
  - name: whisper
    tasks: [speech-to-text]
    url: http://127.0.0.1:7862
  - name: sdxl
    tasks: [text-to-image, image-to-image]
    endpoints: {text-to-image: http://gpu1:7860, image-to-image: http://gpu1:7863}
    names: [stable-diffusion]
    default: true
    tenants: [acme]
  - name: sdxl-next
    tasks: [text-to-image]
    urls: [http://gpu2:7860, http://gpu3:7860]
    names: [sdxl]
    weight: 10
    timeoutSeconds: 120
    maxConcurrency: 8
tenants:
  - metadata: {name: acme}
    spec:
      limits: [{measure: requests, maximum: 1000, window: 1d}]
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from aiservice_api.tasks import Task
from aiservice_api.v1alpha1 import AITenant
from aiservice_gateway.discovery.tenants import to_tenant
from aiservice_gateway.errors import SettingsError
from aiservice_gateway.models import DEFAULT_MAX_QUEUE, DEFAULT_QUEUE_SECONDS, Service
from aiservice_gateway.services.registry import Registry
from aiservice_gateway.services.tenants import Tenant, Tenants

_log = logging.getLogger(__name__)

_SOURCE = "file"
_LOOK_SECONDS = 1.0


class FileService(BaseModel):
    """One service of the file."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)

    name: Annotated[str, Field(min_length=1)]
    tasks: Annotated[list[Task], Field(min_length=1)]
    url: HttpUrl | None = None
    """Base URL of every task that `endpoints` does not name."""
    urls: Annotated[tuple[HttpUrl, ...], Field(max_length=1000)] = ()
    """Instead of `url`: base URLs of several instances, which take requests by turns."""
    endpoints: dict[Task, HttpUrl] = {}
    """Base URL by task."""
    names: tuple[str, ...] = ()
    default: bool = False
    model: str | None = None
    """The model's name, for usage records."""
    tenants: frozenset[str] | None = None
    """The tenants that it admits; left out: all."""
    weight: Annotated[int | None, Field(ge=0, le=1000)] = None
    timeout_seconds: Annotated[int | None, Field(ge=1, le=86400)] = None
    max_concurrency: Annotated[int | None, Field(ge=1, le=100_000)] = None
    max_queue: Annotated[int, Field(ge=0, le=100_000)] = DEFAULT_MAX_QUEUE
    queue_seconds: Annotated[float, Field(ge=1, le=3600)] = DEFAULT_QUEUE_SECONDS

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.url is not None and self.urls:
            raise ValueError("set url or urls, not both")
        for task in self.tasks:
            if self.url is None and not self.urls and task not in self.endpoints:
                raise ValueError(f"set url, urls, or endpoints.{task}")
        return self

    def to_service(self) -> Service:
        """What the registry keeps. A file says nothing of readiness: the service is asked when it is needed."""
        replicas = {task: self._replicas(task) for task in self.tasks}
        return Service(
            name=self.name,
            namespace="",
            tasks=tuple(self.tasks),
            endpoints={task: urls[0] for task, urls in replicas.items()},
            aliases=self.names,
            default=self.default,
            model=self.model,
            tenants=self.tenants,
            replicas=replicas,
            weight=self.weight,
            timeout_seconds=self.timeout_seconds,
            max_concurrency=self.max_concurrency,
            max_queue=self.max_queue,
            queue_seconds=self.queue_seconds,
        )

    def _replicas(self, task: Task) -> tuple[str, ...]:
        stated = self.endpoints.get(task) or self.url
        urls = self.urls if stated is None else (stated,)
        return tuple(dict.fromkeys(str(url).rstrip("/") for url in urls))


class ServicesFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    services: list[FileService]
    tenants: list[dict[str, Any]] = []
    """AITenants; `metadata.name` and `spec` suffice."""

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [service.name for service in self.services]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two services have the name {min(twice)}")
        return self


@dataclass(frozen=True, slots=True)
class Listed:
    """What the file lists."""

    services: list[Service]
    tenants: list[Tenant]


def read_file(path: Path) -> Listed:
    """Reads the file.

    Raises:
        SettingsError: it cannot be read, or is wrong; the message says where.
    """
    try:
        listed = ServicesFile.model_validate(yaml.safe_load(path.read_text()))
        return Listed([service.to_service() for service in listed.services], _read_tenants(listed.tenants))
    except OSError as error:
        raise SettingsError(f"GATEWAY_SERVICES_FILE: {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"GATEWAY_SERVICES_FILE: {path} is not YAML: {error}") from error
    except ValidationError as error:
        raise SettingsError(f"GATEWAY_SERVICES_FILE: {path}: {_explain(error, 'the file')}") from error
    except _TenantError as error:
        raise SettingsError(f"GATEWAY_SERVICES_FILE: {path}: {error}") from error


class _TenantError(Exception):
    """An entry of the file's tenants is wrong; the message says which and how."""


def _read_tenants(documents: list[dict[str, Any]]) -> list[Tenant]:
    """The tenants, read more strictly than objects that an API server has checked.

    Raises:
        _TenantError: one is wrong.
    """
    tenants: dict[str, Tenant] = {}
    for index, document in enumerate(documents):
        try:
            tenant = to_tenant(AITenant.model_validate(document, extra="forbid"))
        except ValidationError as error:
            raise _TenantError(f"tenants.{index}.{_explain(error, '')}") from error
        except ValueError as error:
            raise _TenantError(f"tenants.{index}: {error}") from error
        if tenant.name in tenants:
            raise _TenantError(f"tenants.{index}: another entry is about tenant {tenant.name} too")
        tenants[tenant.name] = tenant
    return list(tenants.values())


def _explain(error: ValidationError, whole: str) -> str:
    """Where the first mistake is, and which."""
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc'])) or whole}: {problem['msg']}"


class FileDiscovery:
    """Follows the file: a change counts within a second; a mistake in it is logged, and the last good one stays."""

    def __init__(self, path: Path, registry: Registry, tenants: Tenants) -> None:
        """Reads the file once.

        Raises:
            SettingsError: as `read_file`.
        """
        self._path = path
        self._registry = registry
        self._tenants = tenants
        self._seen = self._fingerprint()
        self._good = True
        self._take()

    @property
    def synced(self) -> bool:
        """The file was read."""
        return True

    @property
    def connected(self) -> bool:
        """Whether the file, as it is now, could be read."""
        return self._good

    @property
    def pods_followed(self) -> bool:
        """The file names them."""
        return True

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
            self._take()
        except SettingsError as error:
            _log.error("The changed file of services is not used: %s", error)
            self._good = False
        else:
            _log.info("The file of services has changed")
            self._good = True

    def _take(self) -> None:
        listed = read_file(self._path)
        self._registry.replace(_SOURCE, listed.services)
        self._tenants.replace(listed.tenants)

    def _fingerprint(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_ino)
