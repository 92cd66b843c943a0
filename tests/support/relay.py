"""A TCP relay before a real server: counts what the server sends, and slows it down or breaks it off.

Standard library only, so that every environment can use it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK = 16 << 10


class Relay:
    """Passes bytes on between clients and a server on the loopback device."""

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        """Where new connections go; a test may change it."""
        self.bytes_per_second: int | None = None
        """Speed of each connection towards the client."""
        self.mute = False
        """Whether what servers send is thrown away: commands are carried out, and nobody hears of it."""
        self.sent = 0
        """Bytes that the server sent to clients, heads of answers included."""
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        """Where the relay listens."""
        return f"http://127.0.0.1:{self.port}"

    def serve(self) -> None:
        """Takes connections until the relay is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.server_port))
            except OSError:  # the server is away: so are we, to this client
                client.close()
                continue
            self._open |= {client, server}
            for source, target, counted in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pass, args=(source, target, counted), daemon=True).start()

    def close(self) -> None:
        """Ends the relay; connections that are open end with their clients."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def drop(self) -> None:
        """Breaks off all connections."""
        for end in list(self._open):
            _shut(end)

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while chunk := source.recv(_CHUNK):
                if counted and self.mute:
                    continue
                target.sendall(chunk)
                if not counted:
                    continue
                with self._lock:
                    self.sent += len(chunk)
                if self.bytes_per_second is not None:
                    time.sleep(len(chunk) / self.bytes_per_second)
        except OSError:
            return  # the other side is gone, which is what some tests do
        finally:
            for end in (source, target):
                _shut(end)
            if counted:
                self._open -= {source, target}
                source.close()
                target.close()


def _shut(end: socket.socket) -> None:
    with suppress(OSError):  # it may be closed already
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def relaying(server_port: int) -> Iterator[Relay]:
    """Runs a relay on a free port."""
    relay = Relay(server_port)
    thread = threading.Thread(target=relay.serve, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        relay.close()
        thread.join()
