"""What is asked for about caches because no watch tells it, and how often."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest

from aiservice_operator.downloads import Progress
from aiservice_operator.errors import RefusedError
from aiservice_operator.facts import CacheQuestions, events_about
from aiservice_operator.kinds import Json
from aiservice_operator.kube import Kube
from aiservice_operator.names import Mode
from aiservice_operator.observed import Cache
from aiservice_operator.plan import CachePlan
from aiservice_operator.references import References
from aiservice_operator.states import cache_job
from aiservice_operator.status import CacheFacts
from support.cache_objects import live_claim, live_job, mine, view
from support.operator_objects import NOW, condition, container_status, pod, timestamp


class World:
    """An API server that counts, and a clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.done = 0
        self.logs = 0
        self.secrets: list[tuple[str, list[str] | None]] = []
        self.questions = CacheQuestions(cast(Kube, self), cast(References, self), 5, lambda: self.seconds)

    async def last_log_line(self, *_: str) -> str:
        self.logs += 1
        return f'{{"event":"progress","bytesDone":{self.done},"bytesTotal":100,"bytesFetched":3}}'

    async def digest(self, _: str, __: str, name: str, keys: list[str] | None) -> str:
        self.secrets.append((name, keys))
        return "digest"


RUNNING = pod("p", container_status("downloader", running={}), owner="uid-download-1", container="downloader")


async def progress(world: World, mode: Mode = Mode.DOWNLOAD) -> Progress | None:
    owner = mine()
    job = live_job(owner, {"active": 1}, mode=mode, uid="uid-download-1")
    known = view(owner, claim=live_claim(owner), jobs=(job,), pods=(RUNNING,))
    return (await world.questions.answers(known, owner, CachePlan(job=cache_job(job)))).progress


async def test_progress_is_asked_for_no_more_often_than_configured() -> None:
    """However many events come meanwhile, so that the status is written no more often either."""
    world = World()
    first = await progress(world)
    assert first is not None
    world.done, world.seconds = 50, 4.9
    assert await progress(world) == first
    assert world.logs == 1
    world.seconds = 5
    second = await progress(world)
    assert second is not None
    assert (second.bytes_done, world.logs) == (50, 2)
    world.questions.forget(view(mine()).key)
    await progress(world)
    assert world.logs == 3, "another cache of that name is another"


async def test_what_is_measured_has_no_progress() -> None:
    world = World()
    assert await progress(world, Mode.MEASURE) is None
    assert world.logs == 0


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        ({"huggingFace": {"repo": "o/m"}}, []),
        ({"huggingFace": {"repo": "o/m", "tokenSecretRef": {"name": "hub", "key": "t"}}}, [("hub", ["t"])]),
        ({"s3": {"bucket": "models", "credentialsSecretRef": {"name": "keys"}}}, [("keys", None)]),
        ({"oci": {"image": "r.test/m:1", "pullSecretRef": {"name": "login"}}}, [("login", [".dockerconfigjson"])]),
    ],
)
async def test_only_the_keys_that_count_are_looked_at(spec: Json, asked: list[Any]) -> None:
    world = World()
    assert await world.questions.secret(mine(spec)) == ("digest" if asked else "")
    assert world.secrets == asked
    assert await world.questions.secret(None) == ""


GATED: Json = {"huggingFace": {"repo": "o/m", "tokenSecretRef": {"name": "hub"}}, "storage": {"size": "1Gi"}}
CASES: dict[str, tuple[Cache, dict[str, Any], float | None]] = {
    "nothing is awaited": (mine(), {"claim": live_claim(mine())}, None),
    "a claim that waits": (mine(), {"claim": live_claim(mine(), status={"phase": "Pending"})}, 15),
    "a young claim that waits": (
        mine(),
        {"claim": live_claim(mine(), status={"phase": "Pending"}, creationTimestamp="2026-11-23T11:59:50Z")},
        2,
    ),
    "a Secret that may change": (mine(GATED), {"claim": live_claim(mine(GATED))}, 60),
    "a Secret that does not matter any more": (
        mine(
            GATED,
            status={
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "True",
                        "reason": "Cached",
                        "lastTransitionTime": "2026-11-23T11:59:50Z",
                        "observedGeneration": 1,
                    }
                ]
            },
        ),
        {"claim": live_claim(mine(GATED))},
        None,
    ),
    "a claim of the user that is not there": (mine({"pvc": {"claimName": "disk"}}), {}, 15),
}


@pytest.mark.parametrize(
    ("calm", "expected"),
    [
        (timedelta(seconds=1), 15),
        (timedelta(minutes=10), 60),
        (timedelta(hours=1), 300),
        (timedelta(days=30), 300),
    ],
)
def test_a_claim_of_the_user_that_is_long_fine_is_looked_at_rarely(calm: timedelta, expected: float) -> None:
    since = timestamp(NOW - calm)
    ready = {**condition("Ready", "True", "Cached", observedGeneration=1), "lastTransitionTime": since}
    known = mine({"pvc": {"claimName": "disk"}}, status={"conditions": [ready]})
    assert World().questions.again_after(view(known), known, CachePlan(), CacheFacts(), NOW) == expected


@pytest.mark.parametrize("case", CASES)
def test_when_it_is_asked_again(case: str) -> None:
    known, fields, expected = CASES[case]
    again = World().questions.again_after(view(known, **fields), known, CachePlan(), CacheFacts(), NOW)
    assert again == expected


def test_a_running_download_is_asked_for_its_progress() -> None:
    owner = mine()
    job = live_job(owner, {"active": 1}, uid="uid-download-1")
    known = view(owner, claim=live_claim(owner), jobs=(job,), pods=(RUNNING,))
    running = CachePlan(job=cache_job(job))
    assert World().questions.again_after(known, owner, running, CacheFacts(), NOW + timedelta(1)) == 5


class Silent:
    """An API server that lets nobody read Events."""

    async def events_about(self, *_: str) -> list[Json]:
        raise RefusedError("events is forbidden")


async def test_events_that_may_not_be_read_keep_nothing_from_being_told() -> None:
    assert await events_about(cast(Kube, Silent()), live_claim(mine())) == ()
