"""Gateways as processes: ours, and the peers out of the environment gateway-peers, each with one worker."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from support.databases import free_port
from support.gateway import SECRET

_ROOT: Final = Path(__file__).resolve().parents[2]
_PEERS: Final = _ROOT / ".venvs" / "gateway-peers" / "bin"
_START_SECONDS: Final = 120.0
_TYPE: Final = "type.googleapis.com/envoy.extensions.filters"


class StartError(Exception):
    """A server does not begin to listen."""


@contextlib.contextmanager
def server(
    command: Sequence[str], port: int, folder: Path, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that listens, and is gone afterwards; what it says is in a file of the folder."""
    said = folder / f"{port}.log"
    with said.open("wb") as log:
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **(variables or {})}
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise StartError(f"{command[0]} did not start: {said.read_text()[-2000:]}")
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait(10)


def _listens(port: int) -> bool:
    ports = (line.split()[1:4:2] for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return [f"0100007F:{port:04X}", "0A"] in ports


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[str]:
    """The engine behind all of them; yields its base URL."""
    port = free_port()
    with server([sys.executable, str(Path(__file__).with_name("upstream.py")), str(port)], port, folder):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def envoy(folder: Path, engine_url: str) -> Iterator[tuple[str, int]]:
    """Envoy with a JWT filter and a local rate limit, one worker thread; yields its base URL and its process id."""
    port = free_port()
    config = folder / "envoy.json"
    config.write_text(json.dumps(_envoy_config(port, int(engine_url.rpartition(":")[2]))))
    command = [str(_PEERS / "envoy"), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id"]
    with server([*command, "--log-level", "error"], port, folder) as process:
        yield f"http://127.0.0.1:{port}", process.pid


@contextlib.contextmanager
def litellm(folder: Path, engine_url: str) -> Iterator[tuple[str, int, str]]:
    """LiteLLM's proxy with one worker and a master key; yields its base URL, its process id and the key.

    It tells nobody that it runs, takes its list of prices from its own package, and finds no way out of this machine.
    """
    port, key = free_port(), f"sk-{secrets.token_urlsafe(32)}"
    model = {"model": "openai/sdxl", "api_base": f"{engine_url}/v1", "api_key": "none", "rpm": 10_000_000}
    config = folder / "litellm.json"
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": "sdxl", "litellm_params": model}],
                "litellm_settings": {"telemetry": False},
                "router_settings": {"optional_pre_call_checks": ["enforce_model_rate_limits"]},
            }
        )
    )
    variables = {
        "LITELLM_MASTER_KEY": key,
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "HF_HUB_OFFLINE": "1",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
    }
    command = [str(_PEERS / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with server([*command, "--num_workers", "1", "--telemetry", "False"], port, folder, variables) as process:
        yield f"http://127.0.0.1:{port}", process.pid, key


def _envoy_config(port: int, engine_port: int) -> dict[str, Any]:
    key = {"kty": "oct", "alg": "HS256", "k": base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("=")}
    whole = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    filters = {
        "jwt_authn": {
            "@type": f"{_TYPE}.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"application": {"local_jwks": {"inline_string": json.dumps({"keys": [key]})}}},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "application"}}],
        },
        "local_ratelimit": {
            "@type": f"{_TYPE}.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "limit",
            "token_bucket": {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"},
            "filter_enabled": whole,
            "filter_enforced": whole,
        },
        "router": {"@type": f"{_TYPE}.http.router.v3.Router"},
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": "engine", "timeout": "300s"}}
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": f"envoy.filters.http.{name}", "typed_config": one} for name, one in filters.items()],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    endpoint = {"endpoint": {"address": _address(engine_port)}}
    cluster = {
        "name": "engine",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "engine", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {"name": "bench", "address": _address(port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
