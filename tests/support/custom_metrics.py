"""A custom metrics API with one metric, the pods' requests in flight: what an adapter reads from Prometheus, told here.

Registered with the API server as an adapter is, so that the real autoscaler asks it.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.cluster import ControlPlane
from support.kube_api import KubeApi, wait_for

_GROUP, _VERSION, _METRIC = "custom.metrics.k8s.io", "v1beta2", "aiservice_requests_in_flight"
_API_SERVICE = f"/apis/apiregistration.k8s.io/v1/apiservices/{_VERSION}.{_GROUP}"


@dataclass
class InFlight:
    """The metric: the same of every pod."""

    each: float = 0


@contextlib.contextmanager
def custom_metrics(plane: ControlPlane, namespace: str) -> Iterator[InFlight]:
    """Serves the metric for the pods of a namespace, until the end; its service is in that namespace."""
    metric = InFlight()
    with contextlib.closing(KubeApi(plane.kubeconfig, namespace)) as api, _server(plane, metric) as port:
        # The API server connects to this machine itself: an address of this cluster leads nowhere.
        away = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
        api.create("Service", {"metadata": {"name": "metrics"}, "spec": away})
        spec = {
            "group": _GROUP,
            "version": _VERSION,
            "service": {"name": "metrics", "namespace": namespace, "port": port},
            "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        }
        body = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": spec}
        api.request("POST", _API_SERVICE.rpartition("/")[0], {**body, "metadata": {"name": f"{_VERSION}.{_GROUP}"}})
        try:
            wait_for(lambda: _is_available(api), "the API server reaches the metrics")
            yield metric
        finally:  # what is registered and does not answer would keep namespaces from being deleted
            api.request("DELETE", _API_SERVICE)


def _is_available(api: KubeApi) -> bool:
    conditions = api.request("GET", _API_SERVICE).get("status", {}).get("conditions", [])
    assert any(item["type"] == "Available" and item["status"] == "True" for item in conditions), conditions
    return True


@contextlib.contextmanager
def _server(plane: ControlPlane, metric: InFlight) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = _answer(plane, metric, self.path)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with tempfile.TemporaryDirectory() as folder, ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.socket = _context(Path(folder)).wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, name="custom-metrics", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _context(folder: Path) -> ssl.SSLContext:
    certificate, key = folder / "tls.crt", folder / "tls.key"
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj", "/CN=metrics"]
    command = ["openssl", "req", "-x509", *made, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _answer(plane: ControlPlane, metric: InFlight, target: str) -> tuple[int, Any]:
    """What the API serves: its one resource, and the metric of pods by their labels."""
    address, served = urlsplit(target), f"{_GROUP}/{_VERSION}"
    match unquote(address.path).strip("/").split("/"):
        case ["apis", _, _]:
            resource = {"name": f"pods/{_METRIC}", "namespaced": True, "kind": "MetricValueList", "verbs": ["get"]}
            return 200, {"kind": "APIResourceList", "groupVersion": served, "resources": [resource]}
        case ["apis", _, _, "namespaces", namespace, "pods", "*", name] if name == _METRIC:
            (selector,) = parse_qs(address.query).get("labelSelector", [""])
            with contextlib.closing(KubeApi(plane.kubeconfig, namespace)) as api:
                items = [_value(pod, metric) for pod in api.list("Pod", selector)]
            return 200, {"kind": "MetricValueList", "apiVersion": served, "metadata": {}, "items": items}
    return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}


def _value(pod: Any, metric: InFlight) -> dict[str, Any]:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    return {
        "describedObject": {"kind": "Pod", "apiVersion": "/v1", "namespace": namespace, "name": name},
        "metric": {"name": _METRIC},
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "value": f"{round(metric.each * 1000)}m",
    }
