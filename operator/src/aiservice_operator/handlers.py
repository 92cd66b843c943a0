"""Kopf: the watches. The only module that imports it.

Handlers note what they are told and answer nothing. No create or update handlers, no timers, no indexes, no state in
annotations: what happens is decided by the reconcile, from the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from itertools import repeat
from typing import Any

import aiohttp
import kopf

from aiservice_operator import __version__
from aiservice_operator.kinds import RESOURCES, Json, Kind
from aiservice_operator.kube import Kube
from aiservice_operator.watches import WatchMonitor

Note = Callable[[Kind, str | None, Json], None]
"""Takes kind, type of event (DELETED or another) and object."""

_NOTHING = "metadata.name=-"
"""A field selector that no object meets: no name is a dash."""
_ABSENT_SECONDS = 2.0


class _Pauses:
    """Pauses between tries of one request, without an end.

    Kopf's own grow to 21 s: so long a recovered API server would go unnoticed. And after the last one a watch that the
    API server forbids would end the process, whose successor would fare no better.
    """

    def __iter__(self) -> Iterator[float]:
        yield from (0.1, 0.2, 0.5, 1.0)
        yield from repeat(2.0)


class _NoDiffs(kopf.DiffBaseStorage):
    """Kopf copies each object at each event, to tell handlers of changes what changed. There are no such handlers."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        """Nothing is kept on objects."""


class _NoProgress(kopf.ProgressStorage):
    """Handlers of events are not tried again, so there is no progress to keep."""

    def fetch(self, **_: Any) -> kopf.ProgressRecord | None:
        return None

    def store(self, **_: Any) -> None:
        """Nothing is kept on objects."""

    def purge(self, **_: Any) -> None:
        """Nothing was kept."""

    def touch(self, **_: Any) -> None:
        """Nothing is kept on objects."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


async def watch(
    kube: Kube,
    monitor: WatchMonitor,
    namespaces: Sequence[str],
    note: Note,
    started: Callable[[], None],
) -> None:
    """Runs Kopf until it is cancelled or fails.

    Args:
        kube: Where to connect to, and as whom.
        monitor: Follows the requests.
        namespaces: Which are served; empty: all.
        note: Takes what is seen.
        started: Called when Kopf has set up its tasks, and its handlers of signals, which are not wanted.
    """
    others = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=_registry(kube, monitor, note),
        settings=_settings(kube),
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        standalone=True,
    )
    started()
    await kopf.run_tasks(tasks, ignored=others)


def _settings(kube: Kube) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.queueing.worker_limit = None
    settings.queueing.idle_timeout = 0.5
    settings.networking.request_timeout = 20
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = _Pauses()
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.persistence.progress_storage = _NoProgress()
    settings.process.ultimate_exiting_timeout = None
    for kind, resource in RESOURCES.items():
        if selector := kube.selector(kind):
            settings.watching.label_selectors[resource.plural] = selector
    return settings


def _registry(kube: Kube, monitor: WatchMonitor, note: Note) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=kube.server, aiohttp_session=_session(kube, monitor))

    for kind in sorted({kind for kind, _ in monitor.expected}):
        resource = RESOURCES[kind]
        kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)(_handler(kind, note))
    return registry


def _handler(kind: Kind, note: Note) -> Callable[..., Any]:
    async def handle(event: kopf.RawEvent, **_: Any) -> None:
        note(kind, event["type"], dict(event["object"]))

    return handle


def _session(kube: Kube, monitor: WatchMonitor) -> aiohttp.ClientSession:
    """The session for all watches, with credentials that are fresh at each request.

    Kopf lists before it watches, to learn from which version on. That is all it learns here: the store is filled by a
    list of its own when the watch has begun, and to take each object twice would double the time of a start.
    """

    async def authenticate(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if monitor.is_list(request.url):
            request.url = request.url.extend_query(fieldSelector=_NOTHING)
        while True:
            request.headers.update(await kube.credentials())
            response = await send(request)
            if response.status != HTTPStatus.NOT_FOUND:
                return response
            # Kopf gives up, and ends, where a kind is not served. One that is being replaced is back in a moment.
            response.release()
            await asyncio.sleep(_ABSENT_SECONDS)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=kube.tls),
        headers={"User-Agent": f"aiservice-operator/{__version__}"},
        middlewares=(authenticate,),
        trace_configs=[monitor.trace()],
        proxy=kube.proxy,
        read_bufsize=2**21,
    )


def quiet() -> None:
    """Lets only warnings of Kopf through: it reports each step of each watch."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
