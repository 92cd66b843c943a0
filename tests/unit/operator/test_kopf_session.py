"""What Kopf's requests become on their way to the API server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from aiohttp import web

from aiservice_operator.handlers import _session
from aiservice_operator.kube import Kube
from aiservice_operator.watches import WatchMonitor


async def no_credentials() -> dict[str, str]:
    return {"Authorization": "Bearer fresh"}


async def test_kopf_lists_nothing_and_watches_everything() -> None:
    asked: list[tuple[str, dict[str, str], str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, dict(request.query), request.headers.get("Authorization")))
        return web.json_response({"items": []})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = f"http://127.0.0.1:{runner.addresses[0][1]}"
    kube = cast(Kube, SimpleNamespace(server=server, tls=False, proxy=None, credentials=no_credentials))
    pods, query = "/api/v1/pods", {"labelSelector": "a=b"}
    session = cast(Any, _session(kube, WatchMonitor([])))
    try:
        for path, parameters in ((pods, query), (pods, {**query, "watch": "true"}), ("/api/v1/nodes", {})):
            async with session.get(f"{server}{path}", params=parameters) as response:
                assert response.status == 200
    finally:
        await session.close()
        await runner.cleanup()
    assert asked == [
        (pods, {**query, "fieldSelector": "metadata.name=-"}, "Bearer fresh"),
        (pods, {**query, "watch": "true"}, "Bearer fresh"),
        ("/api/v1/nodes", {}, "Bearer fresh"),
    ]
