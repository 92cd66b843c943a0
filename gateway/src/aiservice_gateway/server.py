"""The process: serves the application, and stops without dropping a request."""

from __future__ import annotations

import asyncio
import gc
import math
import signal
import socket
from collections.abc import Sequence
from types import FrameType

import uvicorn

from aiservice_gateway.app import create_app
from aiservice_gateway.factory import Lifecycle
from aiservice_gateway.protocol import Patience, guarded
from aiservice_gateway.settings import Settings

_IDLE_CONNECTION_SECONDS = 75  # longer than the idle time of the usual load balancers, so that they close first


_COLLECT_AFTER_OBJECTS = 20_000


class Server(uvicorn.Server):
    """On SIGTERM: not ready at once, but still accepting for a moment; then what is in flight finishes; exit code 0."""

    def __init__(
        self, config: uvicorn.Config, lifecycle: Lifecycle, delay_seconds: float, parent: int | None = None
    ) -> None:
        super().__init__(config)
        self._parent = parent
        self._lifecycle = lifecycle
        self._delay_seconds = delay_seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Binds, and runs the application's lifespan."""
        self._loop = asyncio.get_running_loop()
        if self._parent is not None:
            self._loop.add_reader(self._parent, self._orphaned)
        await super().startup(sockets)
        # What lives until the end need not be looked through again and again: without this and the higher threshold,
        # collecting garbage is a tenth of a request's processor time (docs/benchmarks.md).
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER_OBJECTS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins to stop; a second signal stops without waiting."""
        del frame
        if self._lifecycle.draining or self._loop is None:
            self.should_exit = self.force_exit = True
            return
        self._loop.call_soon_threadsafe(self._lifecycle.drain)
        # Whoever pressed Ctrl-C has no load balancer to wait for.
        delay = self._delay_seconds if sig == signal.SIGTERM else 0.0
        self._loop.call_soon_threadsafe(self._loop.call_later, delay, self._stop)

    def _orphaned(self) -> None:
        if self._loop is not None and self._parent is not None:
            self._loop.remove_reader(self._parent)
        self.handle_exit(signal.SIGTERM, None)

    def _stop(self) -> None:
        self.should_exit = True


def serve(settings: Settings, sockets: Sequence[socket.socket] | None = None, parent: int | None = None) -> None:
    """Serves until a signal.

    Args:
        settings: From the environment.
        sockets: To listen on; None: as the settings say.
        parent: A file descriptor at whose end the process stops as after SIGTERM.
    """
    lifecycle = Lifecycle()
    config = uvicorn.Config(
        create_app(settings, lifecycle),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=guarded(Patience(settings.header_timeout_seconds, settings.body_timeout_seconds)),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_IDLE_CONNECTION_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )
    server = Server(config, lifecycle, settings.drain_delay_seconds, parent)
    server.run(None if sockets is None else list(sockets))
