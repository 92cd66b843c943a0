"""A small HTTP server for downloads: ranges, ETags, redirects, and the faults that a test asks for.

Standard library only, so that every environment can use it.
"""

from __future__ import annotations

import hashlib
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar
from urllib.parse import unquote, urlsplit

_RANGE = re.compile(r"^bytes=(\d+)-$")
_CHUNK = 16 << 10


@dataclass(frozen=True)
class Answer:
    """An answer given instead of a file."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class CutAfter:
    """The connection breaks after so many bytes of the body."""

    body_bytes: int


@dataclass(frozen=True)
class IgnoreRange:
    """The whole file is sent, whatever range was asked for."""


@dataclass(frozen=True)
class Redirect:
    """The client is sent elsewhere."""

    location: str


Fault = Answer | CutAfter | IgnoreRange | Redirect


@dataclass
class Request:
    """A request as the server saw it."""

    method: str
    target: str
    headers: dict[str, str]
    status: int = 0
    body_bytes: int = 0
    """Bytes of the body that were handed to the network."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    def header(self, name: str) -> str | None:
        """A header of the request, whatever the case of its name."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)


@dataclass
class FileServer:
    """Files by path, and what to do wrong."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    """Faults of the next GETs of a path, one each; then the file is served."""
    send_etags: bool = True
    send_lengths: bool = True
    answer_head: bool = True
    bytes_per_second: int | None = None
    """Speed of each answer."""
    requests: list[Request] = field(default_factory=list)
    host: str = "127.0.0.1"
    """The address of this machine that it listens at."""
    port: int = 0

    @property
    def url(self) -> str:
        """Where the server listens."""
        return f"http://{self.host}:{self.port}"

    def add(self, path: str, content: bytes) -> str:
        """Serves `content` at `path`; returns its URL."""
        self.files[path] = content
        return self.url + path

    def gets(self, path: str) -> list[Request]:
        """The GETs of a path so far."""
        return [request for request in self.requests if request.method == "GET" and request.path == path]

    def body_bytes(self, path: str) -> int:
        """Bytes of bodies sent for a path so far."""
        return sum(request.body_bytes for request in self.gets(path))

    def handle(self, exchange: Exchange) -> None:
        """Answers a request; other servers build on this one by overriding it."""
        path = unquote(exchange.seen.path)
        if path not in self.files:
            exchange.answer(404)
            return
        if exchange.seen.method == "HEAD" and not self.answer_head:
            exchange.answer(405)
            return
        exchange.send_file(self.files[path], etag=self.etag(path))

    def etag(self, path: str) -> str | None:
        """The strong ETag of a file."""
        return f'"{hashlib.sha256(self.files[path]).hexdigest()[:16]}"' if self.send_etags else None

    def next_fault(self, path: str) -> Fault | None:
        """Takes the next fault of a path."""
        waiting = self.faults.get(path)
        return waiting.pop(0) if waiting else None


class Exchange(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    files: FileServer
    seen: Request

    def _dispatch(self) -> None:
        self.seen = Request(self.command, self.path, dict(self.headers))
        self.files.requests.append(self.seen)
        fault = self.files.next_fault(self.seen.path) if self.command == "GET" else None
        self._ignore_range = isinstance(fault, IgnoreRange)
        self._cut_after = fault.body_bytes if isinstance(fault, CutAfter) else None
        if isinstance(fault, Answer):
            self.answer(fault.status, fault.headers, fault.body)
        elif isinstance(fault, Redirect):
            self.answer(302, {"Location": fault.location})
        else:
            self.files.handle(self)

    do_GET = do_HEAD = do_POST = _dispatch  # noqa: N815  names given by the standard library

    def answer(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        """Sends a small answer."""
        self._head(status, {**(headers or {}), "Content-Length": str(len(body))})
        self._body(body)

    def send_file(self, content: bytes, *, etag: str | None, headers: Mapping[str, str] | None = None) -> None:
        """Sends a file, or the rest of it from the byte that was asked for."""
        out = {"Accept-Ranges": "bytes", **(headers or {}), **({"ETag": etag} if etag else {})}
        match = _RANGE.match(self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if match is None or self._ignore_range or (condition is not None and condition != etag):
            if self.files.send_lengths:
                out["Content-Length"] = str(len(content))
            else:
                out["Connection"] = "close"
            self._head(200, out)
            self._body(content)
            return
        start = int(match[1])
        if start >= len(content):
            self.answer(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        out["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._head(206, {**out, "Content-Length": str(len(content) - start)})
        self._body(content[start:])

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.seen.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, content: bytes) -> None:
        if self.command == "HEAD":
            return
        end = len(content) if self._cut_after is None else min(self._cut_after, len(content))
        for start in range(0, end, _CHUNK):
            chunk = content[start : min(start + _CHUNK, end)]
            try:
                self.wfile.write(chunk)
            except OSError:  # the client is gone, which is what some tests do
                self.close_connection = True
                return
            self.seen.body_bytes += len(chunk)
            if self.files.bytes_per_second:
                time.sleep(len(chunk) / self.files.bytes_per_second)
        if end < len(content) or not self.files.send_lengths:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  name given by the standard library
        """Tests look at `requests`; their output stays readable."""


AnyServer = TypeVar("AnyServer", bound=FileServer)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that vanish are what some tests are about; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # sockets are not typed there


@contextmanager
def serving(files: AnyServer) -> Iterator[AnyServer]:
    """Runs a server on a free port."""
    handler = type("BoundExchange", (Exchange,), {"files": files})
    server = _Server((files.host, 0), handler)
    files.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
