"""Several processes on one port, for machines with more cores than one process can use.

The parent imports everything, listens, and then serves nothing itself. Each worker has a listening socket of its own
(SO_REUSEPORT: the kernel spreads connections), which the parent keeps open too: what comes for a worker that has died
waits there for the next, and that one is forked from what is imported already, so it takes over in a moment.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from types import FrameType
from typing import Final

from aiservice_gateway.errors import SettingsError
from aiservice_gateway.settings import METRICS_FOLDER, Settings

_log = logging.getLogger(__name__)

_CANNOT_START: Final = 3
"""uvicorn's exit code."""
_LEAST_LIFE_SECONDS: Final = 1.0
"""One that dies at once, again and again, is not replaced more often than this."""
_BACKLOG: Final = 2048


@dataclass(slots=True)
class _Place:
    """One worker after the other."""

    sockets: Sequence[socket.socket]
    process: ForkProcess | None = None
    started: float = 0.0


@dataclass(slots=True)
class _Parent:
    settings: Settings
    alive: tuple[int, int]
    """A pipe of which only the parent holds the writing end: a worker that reads its end has no parent any more."""
    places: list[_Place] = field(default_factory=list)
    stopping: bool = False
    code: int = 0

    def run(self) -> int:
        signal.signal(signal.SIGTERM, self._pass_on)
        signal.signal(signal.SIGINT, self._pass_on)
        listening = _listen_each(self.settings.host, self.settings.port, self.settings.workers)
        self.places = [_Place(sockets) for sockets in listening]
        for place in self.places:
            self._start(place)
        while running := [place.process for place in self.places if place.process is not None]:
            wait([process.sentinel for process in running])
            for place in self.places:
                if place.process is not None and not place.process.is_alive():
                    self._ended(place, place.process)
        return self.code

    def _start(self, place: _Place) -> None:
        others = [one for other in self.places if other is not place for one in other.sockets]
        process = multiprocessing.get_context("fork").Process(
            target=_work, args=(self.settings, place.sockets, others, self.alive)
        )
        process.start()
        place.process, place.started = process, time.monotonic()
        if self.stopping:  # the signal came before there was anybody to pass it on to
            process.terminate()

    def _ended(self, place: _Place, process: ForkProcess) -> None:
        from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415 - as in `serve`

        place.process = None
        mark_process_dead(process.pid)  # type: ignore[no-untyped-call] # the library has none
        if process.exitcode == _CANNOT_START and not self.stopping:
            self._stop(signal.SIGTERM)
        if self.stopping:
            self.code = self.code or abs(process.exitcode or 0)
            return
        _log.warning("The worker %d has ended, with code %s, and is replaced", process.pid, process.exitcode)
        time.sleep(max(0.0, place.started + _LEAST_LIFE_SECONDS - time.monotonic()))
        self._start(place)

    def _pass_on(self, which: int, _: FrameType | None) -> None:
        self._stop(signal.Signals(which))

    def _stop(self, which: signal.Signals) -> None:
        self.stopping = True
        for place in self.places:
            for one in place.sockets:  # or clients would wait at a door behind which nobody is
                one.close()
            if place.process is not None and place.process.is_alive() and place.process.pid is not None:
                os.kill(place.process.pid, which)


def serve(settings: Settings) -> int:
    """Serves until a signal, which it passes on to the workers; returns the exit code.

    Raises:
        SettingsError: the port cannot be had, or as `prepare`.
    """
    with tempfile.TemporaryDirectory(prefix="aiservice-gateway-metrics-") as folder:
        os.environ[METRICS_FOLDER] = folder
        # Imported here, since prometheus_client has to see the variable, and before the first fork: workers share it.
        import aiservice_gateway.server  # noqa: F401, PLC0415
        from aiservice_gateway.factory import prepare  # noqa: PLC0415

        asyncio.run(prepare(settings))
        alive = os.pipe()
        return _Parent(settings, alive).run()


def _work(
    settings: Settings, sockets: Sequence[socket.socket], others: Sequence[socket.socket], alive: tuple[int, int]
) -> None:
    """The process of a worker. It lets go of what is the parent's or another worker's."""
    from aiservice_gateway.server import serve as serve_alone  # noqa: PLC0415 - as in `serve`

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.setpgrp()  # Ctrl-C is the parent's to pass on: a second signal would stop without waiting
    os.close(alive[1])
    for other in others:
        other.close()
    serve_alone(settings, sockets, parent=alive[0])


def _listen_each(host: str, port: int, count: int) -> list[list[socket.socket]]:
    """Listening sockets for each worker, all on one port; with port 0 a free one."""
    listening: list[list[socket.socket]] = []
    for _ in range(count):
        try:
            listening.append(_listen(host, port))
        except OSError as error:
            raise SettingsError(f"The gateway cannot listen on {host}:{port}: {error.strerror or error}.") from error
        port = listening[0][0].getsockname()[1]
    return listening


def _listen(host: str, port: int) -> list[socket.socket]:
    sockets = []
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in dict.fromkeys(found):
        one = socket.socket(family, kind, protocol)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((address[0], port, *address[2:]))
        one.listen(_BACKLOG)
        port = port or one.getsockname()[1]
        sockets.append(one)
    return sockets
