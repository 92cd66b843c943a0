"""A way to the API server that a test can close: all connections break, and new ones are refused."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from urllib.parse import urlsplit


class Gate:
    """Forwards TCP connections to the server of a kubeconfig; `kubeconfig` is one that goes through it."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        address = urlsplit(cluster["server"])
        self._upstream = (str(address.hostname), address.port or 443)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gate", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._config = config
        self.kubeconfig = folder / "gated-kubeconfig"

    def __enter__(self) -> Gate:
        self._thread.start()
        self.open()
        self._config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self._port}"
        self.kubeconfig.write_text(json.dumps(self._config))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def open(self) -> None:
        """Lets connections through; on the same port each time."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def close(self) -> None:
        """Breaks all connections and refuses new ones."""
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(10)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._forward, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        connections = tuple(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writers = [writer]
        try:
            upstream, back = await asyncio.open_connection(*self._upstream)
            writers.append(back)
            await asyncio.gather(_pipe(reader, back), _pipe(upstream, writer))
        except (OSError, asyncio.CancelledError):  # broken by one side, or by `close`
            pass
        finally:
            self._connections.discard(task)
            for each in writers:
                each.transport.abort()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
    writer.close()
