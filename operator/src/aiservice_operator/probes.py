"""What the kubelet and Prometheus ask: /healthz, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from aiservice_operator.metrics import Metrics

Check = Callable[[], str]
"""Returns what is wrong, or an empty string."""


async def serve(port: int, *, healthy: Check, ready: Check, metrics: Metrics) -> tuple[web.AppRunner, int]:
    """Serves the probes.

    Args:
        port: TCP port; 0: a free one.
        healthy: What is so wrong that a restart is the best that can be done.
        ready: Why this replica could not act, or take over.
        metrics: What /metrics renders.

    Returns:
        The running server, and its port.
    """

    def answering(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            wrong = check()
            return web.Response(text=f"{wrong or 'ok'}\n", status=503 if wrong else 200)

        return answer

    async def render(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", answering(healthy))
    app.router.add_get("/readyz", answering(ready))
    app.router.add_get("/metrics", render)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, None, port)
    await site.start()
    return runner, runner.addresses[0][1]
