"""Limits against a real Redis: all or nothing, shared by all gateways, and never lifted."""

from __future__ import annotations

import asyncio
import hashlib
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from importlib import resources
from pathlib import Path

import aiohttp
import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.models import Measure
from aiservice_gateway.plans import MICROSECONDS, Code, Plan, Verdict, month_of
from aiservice_gateway.stores.redis import RedisStore
from support.databases import RedisServer
from support.gateway import (
    bearer,
    environment,
    eventually,
    gateway_here,
    gateway_process,
    running_engine,
    whisper,
    write_services,
)
from support.limits import Terms, make, record_of, reserve

SPEECH = "/api/speech-to-text"
HOUR = 3_600_000
_AT_ONCE = 50


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    made = RedisStore(redis_url, "test")
    await eventually(made.connect)
    yield made
    await made.close()


def requests(maximum: int, window_ms: int = HOUR, name: str = "requests") -> Terms:
    return Terms(Measure.REQUESTS, maximum, window_ms, name=name)


async def ask(store: RedisStore, plan: Plan, request_id: str = "") -> Verdict:
    return await store.admit(plan, reserve(plan, request_id), [""] * len(plan.holds))


async def pass_all(store: RedisStore, plan: Plan, count: int) -> Sequence[Verdict]:
    verdicts = [await ask(store, plan) for _ in range(count)]
    assert all(one.code == Code.ADMITTED for one in verdicts)
    return verdicts


async def test_requests_at_once_pass_up_to_the_limit(store: RedisStore) -> None:
    plan = make("acme", [requests(100)])
    verdicts = await asyncio.gather(*(ask(store, plan) for _ in range(150)))
    assert sum(one.code == Code.ADMITTED for one in verdicts) == 100
    refused = next(one for one in verdicts if one.code == Code.REFUSED)
    assert 3590 < refused.wait / MICROSECONDS <= 3600


async def test_a_refused_request_takes_nothing_of_any_limit(store: RedisStore, redis_server: RedisServer) -> None:
    terms = [
        requests(100, name="many"),
        Terms(Measure.UNITS, 100, HOUR, 10),
        Terms(Measure.SPEND, 100, 0, 10),
        Terms(Measure.CONCURRENCY, 3),
        requests(1, name="few"),
    ]
    plan = make("acme", terms)
    bases = ["", "", "0 0", "", ""]
    assert (await store.admit(plan, reserve(plan), bases)).states[::2] == [1, 10, 10, 1, 1]
    for _ in range(3):
        refused = await store.admit(plan, reserve(plan), bases)
        assert (refused.code, refused.index) == (Code.REFUSED, 4)
        assert refused.states[::2] == [1, 10, 10, 1, 1]
    assert redis_server.command("HLEN", "aiservice:open:test") == ":1"


async def test_of_several_limits_the_one_that_refuses_longest_is_told(store: RedisStore) -> None:
    terms = [requests(1, 2000, "short"), requests(1, HOUR, "long"), Terms(Measure.CONCURRENCY, 1)]
    plan = make("acme", terms)
    await pass_all(store, plan, 1)
    refused = await ask(store, plan)
    assert (refused.code, refused.index) == (Code.REFUSED, 1)


async def test_a_refund_makes_room_and_is_made_once(store: RedisStore) -> None:
    plan = make("acme", [requests(2), Terms(Measure.CONCURRENCY, 2), Terms(Measure.UNITS, 20, HOUR, 10)])
    first, second = reserve(plan), reserve(plan)
    for one in (first, second):
        one.admitted = (await store.admit(plan, one, [""] * 3)).now
    for _ in range(2):
        await store.refund(first)
    passed = await ask(store, plan)
    assert (passed.code, passed.states[::2]) == (Code.ADMITTED, [2, 2, 20])
    assert (await ask(store, plan)).code == Code.REFUSED


async def test_a_settlement_counts_what_was_measured_and_once(store: RedisStore, redis_server: RedisServer) -> None:
    plan = make("acme", [Terms(Measure.UNITS, 100_000, HOUR, 60_000), Terms(Measure.SPEND, 10_000, 0, 2400)])
    bases = ["", "0 0"]
    one = reserve(plan)
    verdict = await store.admit(plan, one, bases)
    assert verdict.states[::2] == [60_000, 2400]
    one.admitted = verdict.now
    for _ in range(3):
        await store.settle(one, record_of(one, Decimal("2.5"), Decimal("0.0001")))
    assert (await store.standings(plan.holds))[1][::2] == [2500, 100]
    day = one.created_at.date().isoformat()
    assert redis_server.command("HGET", f"aiservice:usage:{day}:acme", "speech-to-text:count") == "$1"
    totals = (await store.counters("acme", day))[Task.SPEECH_TO_TEXT]
    assert (totals.count, totals.units, await store.waiting()) == (1, 2.5, 1)
    # An estimate that was too low is made good too: the next request finds no room.
    other = reserve(plan)
    other.admitted = (await store.admit(plan, other, bases)).now
    await store.settle(other, record_of(other, Decimal(200), Decimal("0.02")))
    assert (await store.admit(plan, reserve(plan), bases)).code == Code.REFUSED


async def test_a_limit_below_the_estimate_lets_one_request_pass_at_a_time(store: RedisStore) -> None:
    plan = make("acme", [Terms(Measure.UNITS, 5000, HOUR, 60_000)])
    one = reserve(plan)
    one.admitted = (await store.admit(plan, one, [""])).now
    assert (await ask(store, plan)).code == Code.REFUSED
    await store.settle(one, record_of(one, Decimal(0)))
    assert (await ask(store, plan)).code == Code.ADMITTED


async def test_a_lowered_limit_tells_when_enough_have_left(store: RedisStore) -> None:
    many, few = make("acme", [requests(10, 1000)]), make("acme", [requests(2, 1000)])
    for _ in range(4):
        await pass_all(store, many, 1)
        await asyncio.sleep(0.05)
    refused = await ask(store, few)
    assert refused.code == Code.REFUSED
    await asyncio.sleep(refused.wait / MICROSECONDS + 0.001)
    assert (await ask(store, few)).code == Code.ADMITTED


async def test_a_limit_of_nothing_lets_nothing_pass(store: RedisStore) -> None:
    for terms in (requests(0), Terms(Measure.UNITS, 0, HOUR), Terms(Measure.CONCURRENCY, 0), Terms(Measure.SPEND, 0)):
        plan = make("acme", [terms])
        refused = await store.admit(plan, reserve(plan), ["0 0"])
        assert refused.code == Code.REFUSED
        assert refused.wait > 0


async def test_standings_are_read_without_being_used(store: RedisStore) -> None:
    terms = [requests(10), Terms(Measure.UNITS, 50, HOUR, 7), Terms(Measure.CONCURRENCY, 9), Terms(Measure.SPEND, 99)]
    plan = make("acme", terms)
    assert (await store.standings(plan.holds))[1] == [0, 0, 0, 0, 0, 0, -1, 0]
    for _ in range(3):
        await store.admit(plan, reserve(plan), ["", "", "", "0 0"])
    for _ in range(2):
        now, states = await store.standings(plan.holds)
        assert states[::2] == [3, 21, 3, 3]
        assert 3590 < states[1] / MICROSECONDS <= 3600
    assert abs(now / MICROSECONDS - time.time()) < 60


async def test_counted_requests_do_not_stay_for_ever(store: RedisStore, redis_server: RedisServer) -> None:
    plan = make("acme", [requests(10), Terms(Measure.UNITS, 50, HOUR, 7)])
    await pass_all(store, plan, 1)
    for key in (plan.holds[0].key, plan.holds[1].key, f"{plan.holds[1].key}:sum"):
        lifetime = int(redis_server.command("PTTL", key).removeprefix(":"))
        assert 3_590_000 < lifetime <= 3_600_000
    await store.renew()
    assert redis_server.command("HLEN", "aiservice:open:test") == ":1", "it is still open"


async def test_what_has_ended_is_forgotten_with_the_next_renewal(store: RedisStore, redis_server: RedisServer) -> None:
    plan = make("acme", [requests(3000)])
    for _ in range(2500):
        one = reserve(plan)
        one.admitted = (await store.admit(plan, one, [""])).now
        await store.refund(one)
    await store.renew()
    assert redis_server.command("EXISTS", "aiservice:open:test") == ":0"


async def test_a_gateway_that_stops_leaves_nothing_behind_unless_something_is_open(
    redis_url: str, redis_server: RedisServer
) -> None:
    for name, left in (("idle", "$-1"), ("busy", "$")):
        store = RedisStore(redis_url, name)
        await eventually(store.connect)
        plan = make("acme", [requests(9)])
        one = reserve(plan)
        one.admitted = (await store.admit(plan, one, [""])).now
        if name == "idle":
            await store.refund(one)
        await store.close()
        assert redis_server.command("ZSCORE", "aiservice:leases", name).startswith(left)
    other = RedisStore(redis_url, "other")
    await eventually(other.connect)
    assert await other.renew() == ["busy"]
    assert await other.sweep("busy") == 1
    assert await other.renew() == []
    await other.close()


async def test_a_plan_for_another_month_is_told_so_by_redis_clock(store: RedisStore) -> None:
    """A gateway whose clock is wrong by months, or that has just not noticed: the budget is the right month's."""
    wrong = make("acme", [requests(5), Terms(Measure.SPEND, 99)], month_of(1_600_000_000 * MICROSECONDS))
    verdict = await store.admit(wrong, reserve(wrong), ["", "0 0"])
    assert verdict.code == Code.OTHER_MONTH
    right = make("acme", [requests(5), Terms(Measure.SPEND, 99)], month_of(verdict.now))
    assert (await store.admit(right, reserve(right), ["", "0 0"])).states[::2] == [1, 1]


async def test_scripts_that_redis_has_forgotten_are_handed_over_anew(
    store: RedisStore, redis_server: RedisServer
) -> None:
    plan = make("acme", [requests(5)])
    await pass_all(store, plan, 1)
    assert redis_server.command("SCRIPT", "FLUSH") == "+OK"
    await pass_all(store, plan, 2)
    assert store.available


async def test_while_redis_is_away_every_call_fails_at_once(store: RedisStore, redis_server: RedisServer) -> None:
    plan = make("acme", [requests(10)])
    redis_server.stop(signal.SIGKILL)
    with pytest.raises(StoreUnavailableError):
        await ask(store, plan)
    for _ in range(100):
        with pytest.raises(StoreUnavailableError):
            await ask(store, plan)
    redis_server.start()
    await eventually(lambda: store.available)
    await pass_all(store, plan, 1)


async def test_a_redis_that_refuses_to_write_counts_as_away(store: RedisStore, redis_server: RedisServer) -> None:
    plan = make("acme", [requests(10)])
    await pass_all(store, plan, 1)
    try:
        assert redis_server.command("CONFIG", "SET", "min-replicas-to-write", "1") == "+OK"
        with pytest.raises(StoreUnavailableError, match="NOREPLICAS"):
            await ask(store, plan)
        assert not store.available
    finally:
        assert redis_server.command("CONFIG", "SET", "min-replicas-to-write", "0") == "+OK"
    await eventually(lambda: store.available)
    await pass_all(store, plan, 1)


async def test_over_the_limit_the_answer_is_the_guides(tmp_path: Path, redis_url: str) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        variables = environment(tmp_path, REDIS_URL=redis_url, GATEWAY_RATE_LIMIT_PER_HOUR="3")
        async with gateway_here(variables) as client:
            for remaining in ("2", "1", "0"):
                async with client.post(SPEECH, json={}, headers=bearer()) as answer:
                    assert (answer.status, answer.headers["x-ratelimit-remaining"]) == (200, remaining)
                    await answer.read()
            async with client.post(SPEECH, json={}, headers=bearer()) as answer:
                assert answer.status == 429
                body = await answer.json()
            assert body == {"error": "Rate limit exceeded", "retry_after": body["retry_after"]}
            assert 3590 <= body["retry_after"] <= 3600
            assert answer.headers["Retry-After"] == str(body["retry_after"])
            assert answer.headers["x-ratelimit-limit"] == "3"
            assert answer.headers["x-ratelimit-remaining"] == "0"
            assert answer.headers["x-ratelimit-reset"] == str(body["retry_after"])
            assert re.fullmatch(
                r'"speech-to-text-requests-3600s";r=0;t=\d+;pk=:[\w+/]{12}:', answer.headers["RateLimit"]
            )
            assert re.fullmatch(
                r'"speech-to-text-requests-3600s";q=3;qu="requests";w=3600;pk=:[\w+/]{12}:',
                answer.headers["RateLimit-Policy"],
            )
            assert len(engine.seen) == 3
            async with client.post(SPEECH, json={}, headers=bearer("other")) as answer:
                assert answer.status == 200
                await answer.read()
            async with client.post("/api/text-to-image", json={}, headers=bearer()) as answer:
                assert answer.status == 404


async def test_two_gateways_share_one_limit(tmp_path: Path, redis_url: str, migrated_database: str) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        variables = environment(tmp_path, REDIS_URL=redis_url, DATABASE_URL=migrated_database)
        async with (
            gateway_process(tmp_path, variables) as one,
            gateway_process(tmp_path, variables) as other,
            aiohttp.ClientSession(headers=bearer()) as client,
        ):
            gate = asyncio.Semaphore(_AT_ONCE)

            async def ask(number: int) -> int:
                url = (one, other)[number % 2].url
                async with gate, client.post(f"{url}{SPEECH}", json={}) as answer:
                    await answer.read()
                    return answer.status

            statuses = await asyncio.gather(*map(ask, range(160)))
            assert statuses.count(200) == 100
            assert statuses.count(429) == 60
            assert len(engine.seen) == 100
            for gateway in (one, other):
                async with client.get(f"{gateway.url}/api/usage") as answer:
                    assert (await answer.json())["services"]["speech-to-text"]["count"] == 100


async def test_without_redis_requests_go_on_and_limits_hold(
    tmp_path: Path, redis_url: str, redis_server: RedisServer
) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        variables = environment(tmp_path, REDIS_URL=redis_url, GATEWAY_RATE_LIMIT_PER_HOUR="10")
        async with gateway_here(variables) as client:

            async def ask() -> int:
                async with client.post(SPEECH, json={}, headers=bearer()) as answer:
                    await answer.read()
                    return answer.status

            assert [await ask() for _ in range(4)] == [200] * 4
            redis_server.stop(signal.SIGKILL)
            # What Redis let pass is remembered here: six are left, not ten.
            assert [await ask() for _ in range(8)] == [200] * 6 + [429] * 2
            async with client.get("/health") as answer:
                assert (answer.status, (await answer.json())["status"]) == (200, "degraded")
            async with client.get("/readyz") as answer:
                assert answer.status == 200
                assert (await answer.json())["dependencies"]["redis"] is False
            async with client.get("/metrics") as answer:
                assert 'dependency_up{dependency="redis"} 0.0' in await answer.text()
            async with client.get("/api/usage", headers=bearer()) as answer:
                body = await answer.json()
            assert body["limits"]["speech-to-text"]["remaining"] == 0
            assert body["today"]["speech-to-text"]["count"] == 10
            redis_server.start()

            async def healthy() -> bool:
                async with client.get("/health") as answer:
                    return bool((await answer.json())["status"] == "healthy")

            await eventually(healthy)
            # Redis counted four, was told of six, and gives none of them away again.
            assert [await ask() for _ in range(3)] == [429] * 3
            async with client.get("/api/limits", headers=bearer()) as answer:
                limits = {limit["task"]: limit for limit in (await answer.json())["limits"]}
            assert limits["speech-to-text"]["remaining"] == 0
            assert limits["speech-to-text"]["limit"] == 10
            assert limits["text-to-image"]["remaining"] == 10
            async with client.get("/api/usage", headers=bearer()) as answer:
                body = await answer.json()
            assert body["services"]["speech-to-text"]["count"] == body["today"]["speech-to-text"]["count"] == 10


async def test_a_request_makes_two_trips_to_redis(
    tmp_path: Path, redis_url: str, migrated_database: str, redis_server: RedisServer
) -> None:
    """Under limits of all measures: what Redis hears of clients is one script to admit and one to settle."""
    limits = [
        {"measure": "requests", "maximum": 1000, "window": "1h"},
        {"measure": "units", "maximum": 100_000, "window": "1h"},
        {"measure": "concurrency", "maximum": 5},
        {"measure": "spend", "maximum": 100},
    ]
    folder = resources.files("aiservice_gateway.stores").joinpath("lua")
    digests = {hashlib.sha1(one.read_bytes()).hexdigest(): one.name for one in folder.iterdir()}
    count = 200
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url), tenants={"acme": limits})
        settings = environment(
            tmp_path, REDIS_URL=redis_url, DATABASE_URL=migrated_database, GATEWAY_LEASE_SECONDS="600"
        )
        async with gateway_here(settings) as client:

            async def ask() -> None:
                async with client.post("/api/speech-to-text", json={}, headers=bearer()) as answer:
                    assert answer.status == 200

            await ask()  # the first reads the month's spend, too
            reader, writer = await asyncio.open_connection("127.0.0.1", redis_server.port)
            writer.write(b"MONITOR\r\n")
            assert await reader.readline() == b"+OK\r\n"
            before = await calls_of_scripts(redis_server.port)
            begun = time.monotonic()
            for _ in range(count):
                await ask()
            seconds = time.monotonic() - begun
            after = await calls_of_scripts(redis_server.port)
            heard = await heard_between_counts(reader)
            writer.close()
    scripts = Counter({digests[name]: calls for name, calls in heard.items() if name in digests})
    assert (scripts["admit.lua"], scripts["settle.lua"]) == (count, count)
    assert after - before == scripts.total()
    # The ledger's writer looks every 0.2 s, and removes what the database has.
    assert heard.total() - 2 * count <= 5 + 10 * seconds, heard


async def heard_between_counts(monitor: asyncio.StreamReader) -> Counter[str]:
    """What clients asked of Redis between two calls of `calls_of_scripts`: names of commands, digests of scripts."""
    heard: Counter[str] = Counter()
    counts = 0
    while counts < 2:
        _, _, who, name, *rest = (await monitor.readline()).decode().strip().replace('"', "").split(" ", 5)
        if name == "INFO":
            counts += 1
        elif counts and who != "lua]":  # else it is a script's own
            heard[rest[0] if name == "EVALSHA" else name] += 1
    return heard


async def calls_of_scripts(port: int) -> int:
    """How often Redis has been asked to run a script, by its own count."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"INFO commandstats\r\n")
    size = int((await reader.readline())[1:])
    text = (await reader.readexactly(size)).decode()
    writer.close()
    found = re.search(r"^cmdstat_evalsha:calls=(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0
