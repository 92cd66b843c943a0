"""Events at turns only; execution that never takes over and never argues for ever; watches, leases and errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient, Configuration
from yarl import URL

from aiservice_api.v1alpha1 import Condition
from aiservice_operator.errors import (
    ConflictError,
    KubeError,
    NotFoundError,
    NotLeaderError,
    OperatorError,
    RefusedError,
    ThrottledError,
    UnavailableError,
    UnreachableError,
)
from aiservice_operator.events import event, turns
from aiservice_operator.execute import Executor
from aiservice_operator.kinds import RESOURCES, Json, Key, Kind, ObjectId
from aiservice_operator.kube import Kube
from aiservice_operator.leader import Leadership
from aiservice_operator.observed import parse_meta
from aiservice_operator.plan import Apply, Delete, Scale
from aiservice_operator.settings import Identity, LeaderElection
from aiservice_operator.status.cache import DELETION_WAITS as WAITS
from aiservice_operator.store import Store
from aiservice_operator.watches import WatchMonitor
from support.operator_objects import NAMESPACE, NOW, condition, metadata

KEY = Key(Kind.AISERVICE, NAMESPACE, "whisper")
TARGET = ObjectId(Kind.SERVICE, NAMESPACE, "whisper")
OWNER = parse_meta(metadata("whisper"))


def conditions(**said: tuple[str, ...]) -> list[Condition]:
    return [Condition.model_validate(condition(name, *words)) for name, words in said.items()]


DOWNLOADED = {"Downloaded": ("True", "Downloaded")}
REPAIRED = {**DOWNLOADED, "Verified": ("True", "Repaired")}


@pytest.mark.parametrize(
    ("kind", "before", "after", "expected"),
    [
        (Kind.AISERVICE, {}, {"Accepted": ("False", "NoEngine"), "Ready": ("False", "NoEngine")}, ["Rejected"]),
        (Kind.AISERVICE, {"Accepted": ("False", "NoEngine")}, {"Accepted": ("False", "NoEngine")}, []),
        (Kind.AISERVICE, {"Accepted": ("False", "NoEngine")}, {"Accepted": ("False", "UnknownProfile")}, ["Rejected"]),
        (Kind.AISERVICE, {}, {"ModelReady": ("True", "Cached"), "Ready": ("Unknown", "Starting")}, []),
        (Kind.AISERVICE, {"Ready": ("Unknown", "Starting")}, {"Ready": ("True", "Serving")}, ["Ready"]),
        (Kind.AISERVICE, {"Ready": ("Unknown", "Starting")}, {"Ready": ("True", "Idle")}, ["Idle"]),
        (Kind.AISERVICE, {"Ready": ("Unknown", "ScalingDown")}, {"Ready": ("True", "Suspended")}, ["Suspended"]),
        (Kind.AISERVICE, {"Ready": ("True", "Serving")}, {"Ready": ("True", "Serving")}, []),
        (Kind.AISERVICE, {"Ready": ("True", "Serving")}, {"Ready": ("Unknown", "RollingOut")}, []),
        (Kind.AISERVICE, {"Ready": ("Unknown", "Starting")}, {"Ready": ("False", "OOMKilled")}, ["Failed"]),
        (Kind.AISERVICE, {"Ready": ("False", "OOMKilled")}, {"Ready": ("False", "CrashLoopBackOff")}, ["Failed"]),
        (
            Kind.AISERVICE,
            {"Ready": ("True", "Serving")},
            {"Ready": ("False", "CrashLoopBackOff"), "Available": ("True", "Serving")},
            ["Degraded"],
        ),
        (Kind.MODEL_CACHE, {}, {"Downloaded": ("True", "Downloaded")}, ["ModelCached"]),
        (Kind.MODEL_CACHE, {}, {"Downloaded": ("True", "NotNeeded")}, []),
        (Kind.MODEL_CACHE, {}, {"StorageBound": ("False", "ProvisioningFailed")}, ["StorageNotBound"]),
        (Kind.MODEL_CACHE, {"Downloaded": ("Unknown", "x")}, {"Downloaded": ("False", "NotFound")}, ["DownloadFailed"]),
        (Kind.MODEL_CACHE, DOWNLOADED, {**DOWNLOADED, "Verified": ("False", "ChecksumMismatch")}, ["FilesDamaged"]),
        (Kind.MODEL_CACHE, DOWNLOADED, {**DOWNLOADED, "Verified": ("True", "Repaired")}, ["FilesRepaired"]),
        (Kind.MODEL_CACHE, REPAIRED, REPAIRED, []),
        (Kind.MODEL_CACHE, REPAIRED, {**DOWNLOADED, "Verified": ("True", "Verified")}, []),
        (
            Kind.MODEL_CACHE,
            {},
            {"Downloaded": ("False", "ChecksumMismatch"), "Verified": ("False", "ChecksumMismatch")},
            ["DownloadFailed"],
        ),
        (Kind.MODEL_CACHE, {"Ready": ("True", "Cached")}, {"Ready": ("True", "InUse", WAITS)}, ["DeletionWaits"]),
        (Kind.MODEL_CACHE, {"Ready": ("True", "InUse", WAITS)}, {"Ready": ("True", "InUse", WAITS)}, []),
        (
            Kind.MODEL_CACHE,
            {"Ready": ("Unknown", "Downloading", "it runs")},
            {"Ready": ("Unknown", "Downloading", f"it runs. {WAITS}")},
            ["DeletionWaits"],
        ),
        (
            Kind.MODEL_CACHE,
            {"Ready": ("Unknown", "Downloading", f"it runs. {WAITS}")},
            {"Ready": ("True", "InUse", WAITS)},
            [],
        ),
    ],
)
def test_what_turned_is_told_once(
    kind: Kind, before: dict[str, tuple[str, ...]], after: dict[str, tuple[str, ...]], expected: list[str]
) -> None:
    assert [turn.reason for turn in turns(kind, conditions(**before), conditions(**after))] == expected


def test_what_a_deletion_waits_for_is_told_without_what_else_is_wrong() -> None:
    after = conditions(Ready=("False", "NotFound", f"404. {WAITS}: delete it. It is used by AIService a"))
    assert [turn.note for turn in turns(Kind.MODEL_CACHE, [], after)] == [
        f"{WAITS}: delete it. It is used by AIService a"
    ]


def test_a_long_note_is_cut_where_the_api_server_would_refuse_it() -> None:
    (turn,) = turns(Kind.AISERVICE, [], [Condition.model_validate(condition("Ready", "False", "Long", "x" * 2000))])
    body = event(KEY, "uid", turn, reporter="one", now=NOW)
    assert len(body["note"].encode()) == 1024
    assert body["regarding"]["kind"] == "AIService"


class FakeKube:
    """Answers as a test says; remembers what it was asked for."""

    def __init__(self, existing: Json | None = None, *, mutate: Callable[[Json], None] = lambda _: None) -> None:
        self.existing = existing
        self.scope = ""
        self.calls: list[str] = []
        self.error: OperatorError | None = None
        self._mutate = mutate
        self._version = 10

    async def get(self, _: ObjectId) -> Json | None:
        self.calls.append("get")
        return self.existing

    async def apply(self, _: ObjectId, body: Json, __: str | None = None) -> Json:
        self.calls.append("apply")
        if self.error is not None:
            raise self.error
        self._version += 1
        live = json.loads(json.dumps({**body, "metadata": {**metadata("whisper"), **body["metadata"]}}))
        live["metadata"]["resourceVersion"] = str(self._version)
        self._mutate(live)
        self.existing = live
        return dict(live)

    async def hand_over(self, _: ObjectId, uid: str, replicas: int) -> Json:
        self.calls.append(f"hand over {uid} with {replicas}")
        assert self.existing is not None
        return {**self.existing, "spec": {**self.existing["spec"], "replicas": replicas}}

    async def delete(self, *_: object) -> Json | None:
        self.calls.append("delete")
        return None


def executor(kube: FakeKube, store: Store | None = None) -> Executor:
    notified: list[frozenset[Key]] = []
    return Executor(Store() if store is None else store, kube, notified.append)  # type: ignore[arg-type] # the part of Kube that it uses


def body(**spec: Any) -> Json:
    return {
        "metadata": {"name": "whisper", "namespace": NAMESPACE, "annotations": {"aiservice.dev/applied": "h"}},
        "spec": spec,
    }


async def test_what_does_not_exist_is_made() -> None:
    kube, store = FakeKube(), Store()
    done = await executor(kube, store).run(KEY, [Apply(TARGET, body(), "missing", OWNER)])
    assert (kube.calls, done.changed, done.refusals) == (["get", "apply"], True, ())
    assert store.child(TARGET) is not None, "the answer is known at once"


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({}, "refused"),
        ({"labels": {"app.kubernetes.io/managed-by": "helm"}}, "refused"),
        ({"ownerReferences": [{"kind": "Tenant", "name": "t", "uid": "u", "controller": True}]}, "refused"),
        ({"ownerReferences": [{"kind": "AIService", "name": "whisper", "uid": "before", "controller": True}]}, "waits"),
        ({"deletionTimestamp": "2026-11-23T12:00:00Z"}, "waits"),
        (
            {"ownerReferences": [{"kind": "AIService", "name": "whisper", "uid": "uid-whisper", "controller": True}]},
            "applied",
        ),
        (
            {"labels": {"app.kubernetes.io/managed-by": "aiservice-operator", "app.kubernetes.io/instance": "whisper"}},
            "applied",
        ),
    ],
)
async def test_what_others_made_is_never_taken_over(fields: Json, outcome: str) -> None:
    kube = FakeKube({"metadata": metadata("whisper", **fields)})
    action = Apply(TARGET, body(), "missing", OWNER)
    if outcome == "waits":
        with pytest.raises(ConflictError, match="still being deleted"):
            await executor(kube).run(KEY, [action])
        return
    done = await executor(kube).run(KEY, [action])
    assert bool(done.refusals) is (outcome == "refused")
    assert ("apply" in kube.calls) is (outcome == "applied")


async def test_whoever_changes_our_fields_as_we_write_them_is_answered_once() -> None:
    def webhook(live: Json) -> None:
        live["spec"]["type"] = "NodePort"

    kube, store = FakeKube(mutate=webhook), Store()
    running = executor(kube, store)
    action = Apply(TARGET, body(type="ClusterIP"), "spec.type is not as wanted")
    assert (await running.run(KEY, [action])).changed
    assert not (await running.run(KEY, [action])).changed
    assert kube.calls == ["apply"]
    # When somebody changes the object it is tried again, once.
    store.put(
        Kind.SERVICE,
        {**(kube.existing or {}), "metadata": {**metadata("whisper"), "generation": 2, "resourceVersion": "99"}},
    )
    assert (await running.run(KEY, [action])).changed


async def test_refusals_are_collected_and_other_errors_end_the_plan() -> None:
    kube = FakeKube()
    kube.error = RefusedError("exceeded quota")
    done = await executor(kube).run(KEY, [Apply(TARGET, body(), "missing")])
    assert [(item.identity, item.message) for item in done.refusals] == [(TARGET, "exceeded quota")]
    kube.error = UnavailableError("away")
    with pytest.raises(UnavailableError):
        await executor(kube).run(KEY, [Apply(TARGET, body(), "missing")])


async def test_a_number_of_pods_is_written_alone_and_known_at_once() -> None:
    existing = {**body(replicas=2, template={"metadata": {}}), "metadata": metadata("whisper")}
    kube, store = FakeKube(existing), Store()
    step = Scale(ObjectId(Kind.DEPLOYMENT, NAMESPACE, "whisper"), "uid-whisper", 0, "why")
    executed = await executor(kube, store).run(KEY, [step])
    assert executed.changed
    assert kube.calls == ["hand over uid-whisper with 0"]
    known = store.child(step.identity)
    assert known is not None
    assert known.body["spec"]["replicas"] == 0


async def test_what_fails_for_long_is_told_like_a_refusal() -> None:
    """A webhook that is away must not hide what there is to say of everything else."""
    now, kube = [100.0], FakeKube()
    running = Executor(Store(), kube, lambda _: None, lambda: now[0])  # type: ignore[arg-type] # the part of Kube that it uses
    action = Apply(TARGET, body(), "missing")

    async def outcome(error: KubeError | None, at: float) -> str:
        kube.error, now[0] = error, at
        try:
            done = await running.run(KEY, [action])
        except KubeError:
            return "raised"
        return ", ".join(refusal.message for refusal in done.refusals) or "done"

    failing = UnavailableError("failed calling webhook")
    assert await outcome(failing, 100) == "raised"
    assert await outcome(failing, 102.9) == "raised", "it may pass in a moment"
    assert await outcome(failing, 103) == "failed calling webhook"
    assert await outcome(ConflictError("still being deleted"), 110) == "still being deleted"
    assert await outcome(UnreachableError("away"), 120) == "raised", "the API server's own absence is no child's"
    assert await outcome(ThrottledError("too many requests", 1), 130) == "raised"
    assert await outcome(None, 140) == "done"
    assert await outcome(failing, 150) == "raised", "it went well meanwhile"
    running.forget(KEY)
    assert await outcome(failing, 160) == "raised", "so did all of the plan"
    kube.error, now[0] = NotLeaderError(), 170
    with pytest.raises(NotLeaderError):
        await running.run(KEY, [action])


async def test_a_slow_failure_is_tried_twice() -> None:
    """When the API server's own storage is away for a while, that is over with the second try."""
    now, kube = [0.0], FakeKube()

    def pass_time() -> float:
        now[0] += 10
        return now[0]

    running = Executor(Store(), kube, lambda _: None, pass_time)  # type: ignore[arg-type] # the part of Kube that it uses
    kube.error = UnavailableError("request timed out")
    with pytest.raises(UnavailableError):
        await running.run(KEY, [Apply(TARGET, body(), "missing")])
    done = await running.run(KEY, [Apply(TARGET, body(), "missing")])
    assert done.refusals


async def test_a_deleted_object_is_forgotten_at_once() -> None:
    kube, store = FakeKube(), Store()
    store.put(Kind.SERVICE, {"metadata": metadata("whisper"), "spec": {}})
    await executor(kube, store).run(KEY, [Delete(TARGET, "uid-whisper", "test")])
    assert store.child(TARGET) is None


class FakeRest:
    """The HTTP side of the official client."""

    def __init__(self, status: int, content: str, headers: dict[str, str] | None = None) -> None:
        self.answer = SimpleNamespace(status=status, headers=headers or {}, read=self._read)
        self._content = content
        self.requests: list[tuple[str, str]] = []

    async def request(self, method: str, url: str, **_: object) -> Any:
        self.requests.append((method, url))
        return self.answer

    async def _read(self) -> bytes:
        return self._content.encode()


def kube_answering(rest: FakeRest, *, leads: bool = True) -> Kube:
    client = ApiClient(Configuration(host="https://api.test"))
    client.rest_client = rest  # type: ignore[assignment] # the part of it that is used
    return Kube(client, lambda: leads)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, RefusedError),
        (401, UnavailableError),
        (403, RefusedError),
        (404, NotFoundError),
        (409, ConflictError),
        (410, NotFoundError),
        (422, RefusedError),
        (429, ThrottledError),
        (500, UnavailableError),
        (503, UnavailableError),
    ],
)
async def test_answers_become_errors_of_the_operator(status: int, expected: type[KubeError]) -> None:
    kube = kube_answering(FakeRest(status, '{"message": "because"}', {"Retry-After": "7"}))
    with pytest.raises(expected, match="because") as raised:
        await kube.apply(TARGET, {"metadata": {}})
    assert not isinstance(raised.value, ThrottledError) or raised.value.retry_after == 7


async def test_what_a_proxy_answers_is_quoted() -> None:
    with pytest.raises(UnavailableError, match="<html>Bad gateway"):
        await kube_answering(FakeRest(502, "<html>Bad gateway</html>")).apply(TARGET, {"metadata": {}})


async def test_whoever_does_not_lead_writes_nothing() -> None:
    rest = FakeRest(200, "{}")
    kube = kube_answering(rest, leads=False)
    with pytest.raises(NotLeaderError):
        await kube.apply(TARGET, {"metadata": {}})
    with pytest.raises(NotLeaderError):
        await kube.delete(TARGET, "uid")
    assert rest.requests == []


async def test_apply_says_who_applies() -> None:
    rest = FakeRest(200, "{}")
    await kube_answering(rest).apply(TARGET, {"metadata": {}}, "status")
    assert rest.requests == [
        (
            "PATCH",
            "https://api.test/api/v1/namespaces/team/services/whisper/status?fieldManager=aiservice-operator&force=true",
        )
    ]


async def test_the_log_of_a_node_that_does_not_answer_is_empty() -> None:
    assert await kube_answering(FakeRest(500, "dial tcp")).last_log_line(NAMESPACE, "p", "c") == ""


async def test_watches_are_followed_by_their_requests() -> None:
    now = [0.0]
    monitor = WatchMonitor(["a"], clock=lambda: now[0])
    trace = monitor.trace()

    async def ask(kind: str, status: int | None) -> None:
        path = next(path for path in monitor._paths if path.endswith(f"/a/{kind}"))
        context = SimpleNamespace()
        await trace.on_request_start[0](None, context, SimpleNamespace(url=URL(f"https://x{path}?watch=true")))  # type: ignore[arg-type] # as aiohttp calls it
        if status is not None:
            await trace.on_request_end[0](None, context, SimpleNamespace(response=SimpleNamespace(status=status)))  # type: ignore[arg-type] # as aiohttp calls it

    now[0] = 5.0
    assert monitor.lost_seconds() == 5
    for kind in (resource.plural for resource in RESOURCES.values() if resource.plural != "pods"):
        await ask(kind, 200)
    assert monitor.missing() == ["Pod in a"]
    await ask("pods", 403)
    assert monitor.missing() == ["Pod in a"]
    await ask("pods", 200)
    await monitor.connected()
    assert monitor.lost_seconds() == 0
    assert len(await monitor.stale(0)) == len(Kind)
    assert await monitor.stale(0) == frozenset()

    now[0] = 20.0
    await ask("jobs", None)
    now[0] = 23.0
    assert (monitor.lost_seconds(), monitor.missing()) == (3, ["Job in a"])
    await ask("jobs", 200)
    assert await monitor.stale(0) == {(Kind.JOB, "a")}


async def test_a_lease_is_held_until_it_would_run_out() -> None:
    now = [100.0]
    client = ApiClient(Configuration(host="https://api.test"))
    leadership = Leadership(client, Identity(name="one", namespace="x"), LeaderElection(), clock=lambda: now[0])
    assert not leadership.held()
    leadership._note(100.0)
    now[0] = 114.9
    assert leadership.held()
    now[0] = 115.0
    assert not leadership.held()
    await asyncio.sleep(0)
