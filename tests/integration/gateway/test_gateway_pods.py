"""Several pods of a service, and several services behind a name: who gets a request, and what is tried again."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.databases import free_port
from support.gateway import (
    Engine,
    bearer,
    environment,
    eventually,
    gateway_here,
    running_engine,
    whisper,
    write_services,
)

SPEECH = "/api/speech-to-text"


@dataclass
class World:
    """A gateway, and engines behind it."""

    client: aiohttp.ClientSession
    engines: list[Engine]

    async def ask(
        self, do: dict[str, Any] | None = None, *, tenant: str = "acme", path: str = SPEECH, size: int = 0
    ) -> tuple[int, dict[str, Any], Any]:
        """A request; returns status, body and headers."""
        body: dict[str, Any] = {"json": {"do": do or {}}} if not size else {"data": io.BytesIO(b"a" * size)}
        async with self.client.post(path, headers=bearer(tenant), **body) as answer:
            return answer.status, await answer.json(), answer.headers

    async def statuses(self, count: int, do: dict[str, Any] | None = None, **more: Any) -> Counter[int]:
        """Requests, one after the other."""
        return Counter([(await self.ask(do, **more))[0] for _ in range(count)])

    def seen(self) -> list[int]:
        """How many requests each engine got."""
        return [len(engine.seen) for engine in self.engines]

    async def metric(self, name: str) -> float:
        """The value of a line of /metrics; 0 where there is none."""
        async with self.client.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " ")), 0.0)

    async def used(self) -> tuple[int, int]:
        """Requests in the ledger, and what the limit has counted."""
        async with self.client.get("/api/usage", headers=bearer()) as answer:
            body = await answer.json()
        count = body["services"].get("speech-to-text", {"count": 0})["count"]
        return count, 100_000 - body["limits"]["speech-to-text"]["remaining"]


@asynccontextmanager
async def world(folder: Path, engines: int, *services: dict[str, object], **more: object) -> AsyncIterator[World]:
    """A gateway for some engines: behind one service, or behind those that are given, with the engines' numbers."""
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(running_engine()) for _ in range(engines)]
        one = {"name": "whisper", "tasks": ["speech-to-text"], "urls": [engine.url for engine in made], **more}
        several = [{**service, "url": made[int(str(service["url"]))].url} for service in services]
        write_services(folder / "services.yaml", *(several or [one]))
        variables = environment(folder, GATEWAY_RATE_LIMIT_PER_HOUR="100000")
        yield World(await stack.enter_async_context(gateway_here(variables)), made)


async def test_requests_are_spread_over_pods(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as made:
        assert await made.statuses(12) == {200: 12}
        assert made.seen() == [4, 4, 4]
        assert await made.metric('aiservice_gateway_pods{service="whisper",state="used"}') == 3


async def test_a_request_goes_where_the_fewest_are(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as made:
        slow = [asyncio.create_task(made.ask({"sleep": 2})) for _ in range(2)]
        await eventually(lambda: sum(made.seen()) == 2)
        [free] = [number for number, count in enumerate(made.seen()) if not count]
        assert await made.statuses(5) == {200: 5}
        assert made.seen()[free] == 5
        assert [answer[0] for answer in await asyncio.gather(*slow)] == [200, 200]


@pytest.mark.parametrize("size", [0, 1_000_000])
async def test_a_pod_that_cannot_be_reached_costs_nobody_an_answer(tmp_path: Path, size: int) -> None:
    """Nothing of a request was sent, so a large one can be sent elsewhere as well as a small one."""
    async with running_engine() as engine:
        urls = [engine.url, f"http://127.0.0.1:{free_port()}"]
        write_services(tmp_path / "services.yaml", {"name": "w", "tasks": ["speech-to-text"], "urls": urls})
        async with gateway_here(environment(tmp_path)) as client:
            made = World(client, [engine])
            assert await made.statuses(12, size=size) == {200: 12}
            assert {seen.body_bytes for seen in engine.seen} == {size or len(b'{"do": {}}')}
            assert await made.metric('aiservice_gateway_retries_total{reason="unreached",service="w"}') == 5
            assert await made.metric('aiservice_gateway_pod_ejections_total{service="w"}') == 1
            assert await made.metric('aiservice_gateway_pods{service="w",state="ejected"}') == 1


async def test_a_busy_pod_is_passed_over_while_another_one_can_take_the_request(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as made:
        made.engines[0].status = 503
        assert await made.statuses(10) == {200: 10}
        assert made.seen() == [1, 10]
        assert await made.metric('aiservice_gateway_retries_total{reason="busy",service="whisper"}') == 1
        assert await made.used() == (10, 10)


async def test_a_busy_pod_takes_requests_again_after_its_time(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as made:
        made.engines[0].status, made.engines[0].retry_after = 503, 1
        await made.statuses(2)
        made.engines[0].status = 0
        await asyncio.sleep(1.1)
        made.engines[0].seen.clear()
        await made.statuses(4)
        assert len(made.engines[0].seen) == 2


async def test_where_all_pods_are_busy_the_answer_says_when_the_first_is_not(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as made:
        for engine, seconds in zip(made.engines, (30, 4), strict=True):
            engine.status, engine.retry_after = 503, seconds
        status, body, headers = await made.ask()
        assert (status, body["code"], headers["Retry-After"]) == (503, "unavailable", "4")
        assert made.seen() == [1, 1]
        await made.ask()
        assert sum(made.seen()) == 3  # once only: both are known to be busy
        assert await made.used() == (0, 0)


async def test_a_large_body_is_not_sent_a_second_time(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as made:
        for engine in made.engines:
            engine.status = 503
        assert (await made.ask(size=65536))[0] == 503
        assert made.seen() == [1, 1]
        made.engines[0].seen.clear()
        made.engines[1].seen.clear()
        assert (await made.ask(size=65537))[0] == 503
        assert sum(made.seen()) == 1


async def test_what_an_engine_may_have_worked_on_is_not_tried_again(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as made:
        assert await made.statuses(4, {"status": 500}) == {502: 4}
        assert sum(made.seen()) == 4
        assert await made.used() == (4, 4)


async def test_a_pod_that_fails_is_left_out_and_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiservice_gateway.services.balancer._FIRST_EJECTION_SECONDS", 1.0)
    async with world(tmp_path, 2) as made:
        made.engines[0].status = 500
        assert await made.statuses(10) == {502: 5, 200: 5}
        assert await made.statuses(10) == {200: 10}
        await asyncio.sleep(1.1)
        made.engines[0].status = 0
        made.engines[0].seen.clear()
        assert await made.statuses(10) == {200: 10}
        assert len(made.engines[0].seen) > 3


async def test_a_pod_that_takes_too_long_is_left_out(tmp_path: Path) -> None:
    async with world(tmp_path, 2, timeoutSeconds=1) as made:
        good = made.engines[1]

        async def hang() -> int:
            return (await made.ask({"sleep": 30}))[0]

        assert Counter(await asyncio.gather(*(hang() for _ in range(10)))) == {504: 10}
        assert await made.metric('aiservice_gateway_pods{service="whisper",state="ejected"}') == 1
        assert good.disconnects + made.engines[0].disconnects == 10


async def test_each_service_has_its_own_time(tmp_path: Path) -> None:
    services: list[dict[str, object]] = [
        {"name": "quick", "tasks": ["speech-to-text"], "url": 0, "timeoutSeconds": 1},
        {"name": "slow", "tasks": ["speech-to-text"], "url": 0},
    ]
    async with world(tmp_path, 1, *services) as made:
        status, body, _ = await made.ask({"sleep": 2}, path=f"{SPEECH}?service=quick")
        assert (status, body["error"]) == (504, "The service quick did not answer within 1 s.")
        assert (await made.ask({"sleep": 2}, path=f"{SPEECH}?service=slow"))[0] == 200


async def test_services_share_a_name_by_weight_and_the_record_says_which_one_served(tmp_path: Path) -> None:
    services: list[dict[str, object]] = [
        {"name": "large", "tasks": ["speech-to-text"], "url": 0, "weight": 80, "model": "large-v3", "default": True},
        {"name": "next", "tasks": ["speech-to-text"], "url": 1, "weight": 20, "names": ["large"], "model": "large-v4"},
    ]
    async with world(tmp_path, 2, *services) as made:
        assert await made.statuses(200, path=f"{SPEECH}?service=large") == {200: 200}
        first, second = made.seen()
        assert first + second == 200
        assert 15 <= second <= 70  # 40 are expected; beyond these bounds in one run of a hundred thousand
        assert await made.statuses(5, path=f"{SPEECH}?service=next") == {200: 5}
        assert await made.statuses(5) == {200: 5}  # next is no default
        assert made.seen() == [first + 5, second + 5]
        counts = Counter(await models(tmp_path, 210))
    assert counts == {"large-v3": first + 5, "large-v4": second + 5}


async def models(folder: Path, count: int) -> list[str]:
    """The models of all records, once there are so many."""
    import sqlite3  # noqa: PLC0415 - for this one look

    def look() -> list[str]:
        with sqlite3.connect(folder / "usage.sqlite3") as connection:
            return [model for (model,) in connection.execute('SELECT model FROM "AIUsage"')]

    await eventually(lambda: len(look()) == count)
    return look()


async def test_requests_over_the_cap_wait_and_tenants_take_turns(tmp_path: Path) -> None:
    async with world(tmp_path, 1, maxConcurrency=1) as made:
        order: list[str] = []

        async def ask(tenant: str) -> None:
            assert (await made.ask({"sleep": 0.3}, tenant=tenant))[0] == 200
            order.append(tenant)

        tasks = []
        for tenant in ("a", "a", "a", "a", "a", "b", "c"):
            tasks.append(asyncio.create_task(ask(tenant)))
            await asyncio.sleep(0.01)
        assert await made.metric('aiservice_gateway_queue_depth{service="whisper"}') > 2
        await asyncio.gather(*tasks)
        assert sorted(order[:4]) == ["a", "a", "b", "c"]
        assert await made.metric('aiservice_gateway_queue_seconds_count{service="whisper"}') == 6
        assert await made.metric('aiservice_gateway_queue_depth{service="whisper"}') == 0


async def test_a_full_queue_and_a_long_wait_are_told_with_a_true_time(tmp_path: Path) -> None:
    async with world(tmp_path, 1, maxConcurrency=1, maxQueue=1, queueSeconds=1) as made:
        await made.ask({"sleep": 2})  # how long a request takes
        slow = asyncio.create_task(made.ask({"sleep": 3}))
        await eventually(lambda: len(made.engines[0].seen) == 2)
        waits = asyncio.create_task(made.ask())
        await asyncio.sleep(0.2)
        status, body, headers = await made.ask()
        assert (status, body["code"]) == (503, "unavailable")
        assert headers["Retry-After"] in {"5", "6"}  # the one that waits and this one, 2 s each, rounded up
        status, body, headers = await waits
        assert (status, body["code"]) == (503, "unavailable")
        assert "no turn came within 1 s" in body["error"]
        assert (await slow)[0] == 200
        assert await made.used() == (2, 2)  # what was refused costs nothing
        for reason in ("full", "late"):
            name = f'aiservice_gateway_queue_refused_total{{reason="{reason}",service="whisper"}}'
            assert await made.metric(name) == 1


async def test_a_client_that_goes_away_leaves_the_queue(tmp_path: Path) -> None:
    async with world(tmp_path, 1, maxConcurrency=1) as made:
        slow = asyncio.create_task(made.ask({"sleep": 1}))
        await eventually(lambda: made.engines[0].seen)
        waits = asyncio.create_task(made.ask())
        depth = 'aiservice_gateway_queue_depth{service="whisper"}'

        async def waiting() -> bool:
            return await made.metric(depth) == 1

        async def left() -> bool:
            return await made.metric(depth) == 0

        await eventually(waiting)
        waits.cancel()
        await eventually(left, 0.5)
        assert (await slow)[0] == 200
        assert made.seen() == [1]
        assert await made.used() == (1, 1)


async def test_a_client_that_goes_away_while_a_pod_is_being_reached_is_not_sent_elsewhere(tmp_path: Path) -> None:
    """A listener whose queue of connections is full: the connection is never made."""
    import socket  # noqa: PLC0415 - for this one listener

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    address = listener.getsockname()
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(address)
    async with running_engine() as engine:
        urls = [f"http://127.0.0.1:{address[1]}", engine.url]
        write_services(tmp_path / "services.yaml", {"name": "w", "tasks": ["speech-to-text"], "urls": urls})
        async with gateway_here(environment(tmp_path)) as client:
            made = World(client, [engine])
            tasks = [asyncio.create_task(made.ask()) for _ in range(2)]
            await eventually(lambda: engine.seen)
            await asyncio.sleep(0.3)
            [stuck] = [task for task in tasks if not task.done()]
            stuck.cancel()

            async def none_left() -> bool:
                return await made.metric('aiservice_gateway_service_requests{service="w"}') == 0

            await eventually(none_left, 2)
            assert len(engine.seen) == 1
    for filler in (*fillers, listener):
        filler.close()


async def test_a_change_of_the_file_changes_the_pods(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as made:
        await made.statuses(2)
        write_services(tmp_path / "services.yaml", whisper(made.engines[1].url))
        await asyncio.sleep(1.2)
        await made.statuses(4)
        assert made.seen() == [1, 5]
