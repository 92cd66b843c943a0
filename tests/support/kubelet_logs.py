"""The part of a kubelet that serves logs. The real API server asks it, as it asks every kubelet, over TLS.

It has the certificate of the cluster's API server, which is one for this machine from the authority that the API server
wants kubelets' certificates to be from, and answers only who has a certificate of that authority.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


@dataclass
class KubeletLogs:
    """What containers have printed, by their names, the same in every pod."""

    port: int
    """Where it listens: the port of the kubelet of the nodes that it is for."""
    lines: dict[str, list[str]] = field(default_factory=dict)
    earlier: dict[str, list[str]] = field(default_factory=dict)
    """What the containers printed before they were started again."""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and query of each request."""

    def answer(self, target: str) -> bytes | None:
        """The log that a request asks for; None where there is no such container."""
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.asked.append((url.path, query))
        log, _, _, container = url.path.removeprefix("/").split("/")
        kept = self.earlier if query.get("previous") == "true" else self.lines
        if log != "containerLogs" or container not in kept:
            return None
        tail = query.get("tailLines")
        lines = kept[container][-int(tail) :] if tail is not None else kept[container]
        return "".join(f"{line}\n" for line in lines).encode()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, logs: KubeletLogs, *arguments: object) -> None:
        self._logs = logs
        super().__init__(*arguments)  # type: ignore[arg-type] # what the server passes

    def do_GET(self) -> None:
        body = self._logs.answer(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(body if body is not None else b"no such container\n")

    def log_message(self, *_: object) -> None:
        """Nothing: tests look at what was asked for."""


@contextmanager
def kubelet_logs(kubeconfig: Path) -> Iterator[KubeletLogs]:
    """Serves logs, for nodes of the cluster that this kubeconfig of `scripts/cluster` is for."""
    keys = kubeconfig.parent / "pki"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(keys / "ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(keys / "kube-apiserver.crt", keys / "kube-apiserver.key")
    logs = KubeletLogs(0)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, logs)) as server:
        # Handshakes are left to the threads of the connections, so that one that hangs keeps nobody out.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        logs.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, name="kubelet-logs", daemon=True)
        thread.start()
        try:
            yield logs
        finally:
            server.shutdown()
            thread.join(timeout=30)
