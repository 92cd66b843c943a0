"""Services from AIService objects of a real API server, as the gateway's own service account."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kubernetes.aio import client, config

from aiservice_api.tasks import Task
from aiservice_gateway.discovery.follow import Follower
from aiservice_gateway.discovery.kubernetes import ServiceObjects
from aiservice_gateway.models import Service
from aiservice_gateway.services.api_keys import key_hash
from aiservice_gateway.services.registry import Registry
from support import cluster
from support.cluster import REPOSITORY, ControlPlane
from support.gateway import Engine, bearer, environment, eventually, gateway_here, gateway_process, running_engine

SPEECH = "/api/speech-to-text"


@pytest.fixture(scope="session", autouse=True)
def crds(control_plane: ControlPlane) -> None:
    for name in ("aiservices", "modelcaches", "aitenants"):
        path = REPOSITORY / f"crds/{name}.aiservice.dev.yaml"
        control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(path))
        cluster.eventually(partial(established, control_plane, f"{name}.aiservice.dev"))


def established(plane: ControlPlane, name: str) -> bool:
    """Whether objects of a CRD can be made. `kubectl wait` fails on one that has no status yet."""
    conditions = plane.get("crd", name).get("status", {}).get("conditions") or []
    return any((found["type"], found["status"]) == ("Established", "True") for found in conditions)


def resource(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "aiservice.dev/v1alpha1",
        "kind": "AIService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "tasks": ["speech-to-text"],
            "modelCacheRef": {"name": "whisper"},
            "profile": "cpu",
            **spec,
        },
    }


def tenant(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "aiservice.dev/v1alpha1",
        "kind": "AITenant",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def accepted(plane: ControlPlane, name: str, namespace: str) -> tuple[str, str] | None:
    """Status and reason of an AITenant's condition."""
    conditions = plane.get("-n", namespace, "aitenant", name).get("status", {}).get("conditions", [])
    return next(((found["status"], found["reason"]) for found in conditions), None)


def set_ready(plane: ControlPlane, name: str, namespace: str, url: str, *, ready: bool = True) -> None:
    """Writes the status as the operator does."""
    condition = {
        "type": "Available",
        "status": "True" if ready else "False",
        "reason": "Available" if ready else "Loading",
        "message": "by a test",
        "lastTransitionTime": "2026-11-23T07:00:00Z",
        "observedGeneration": 1,
    }
    status = {"endpoints": {"speech-to-text": url}, "model": "openai/whisper-tiny", "conditions": [condition]}
    plane.patch_status(f"aiservice/{name}", status, namespace)


async def status_of(session: aiohttp.ClientSession, path: str = SPEECH) -> int:
    async with session.post(path, json={}, headers=bearer()) as answer:
        await answer.read()
        return answer.status


async def until_status(session: aiohttp.ClientSession, status: int, path: str = SPEECH) -> None:
    async def look() -> bool:
        return await status_of(session, path) == status

    await eventually(look)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with running_engine() as made:
        yield made


async def test_the_life_of_a_service(
    control_plane: ControlPlane, namespace: str, engine: Engine, tmp_path: Path
) -> None:
    kubeconfig = str(control_plane.kubeconfig)
    variables = environment(
        tmp_path,
        GATEWAY_SERVICES_FILE="",
        GATEWAY_NAMESPACES=namespace,
        GATEWAY_NAMESPACE=namespace,
        GATEWAY_RATE_LIMIT_PER_HOUR="100000",  # it is asked often until a change has come through
        KUBECONFIG=kubeconfig,
    )
    async with gateway_here(variables) as session:

        async def unavailable() -> bool:
            async with session.get("/health") as answer:
                services = (await answer.json())["services"]
            return bool(services == {"speech-to-text": {"status": "unavailable", "response_time": None}})

        async def healthy() -> bool:
            async with session.get("/health") as answer:
                return bool((await answer.json())["services"]["speech-to-text"]["status"] == "healthy")

        await until_status(session, 404)  # 503 while nothing is known yet
        async with session.get("/readyz") as answer:
            assert answer.status == 200

        control_plane.apply(resource("whisper", namespace, gateway={"names": ["stt"]}))
        await until_status(session, 503)
        await eventually(unavailable)

        set_ready(control_plane, "whisper", namespace, engine.url)
        await until_status(session, 200)
        assert await status_of(session, f"{SPEECH}?service=stt") == 200
        await eventually(healthy)

        set_ready(control_plane, "whisper", namespace, engine.url, ready=False)
        await until_status(session, 503)
        set_ready(control_plane, "whisper", namespace, engine.url)
        await until_status(session, 200)

        hide = json.dumps({"spec": {"gateway": {"expose": False}}})
        control_plane.kubectl("patch", "aiservice/whisper", "-n", namespace, "--type=merge", "-p", hide)
        await until_status(session, 404)
        show = json.dumps({"spec": {"gateway": {"expose": True}}})
        control_plane.kubectl("patch", "aiservice/whisper", "-n", namespace, "--type=merge", "-p", show)
        await until_status(session, 200)

        control_plane.kubectl("delete", "aiservice/whisper", "-n", namespace)
        await until_status(session, 404)


async def test_a_gateway_with_only_its_own_rights(
    control_plane: ControlPlane, namespace: str, engine: Engine, tmp_path: Path
) -> None:
    """A service account that may what the chart lets it, in one namespace, and nothing else."""
    control_plane.apply(resource("whisper", namespace), tenant("acme", namespace))
    set_ready(control_plane, "whisper", namespace, engine.url)
    kubeconfig = _limited(control_plane, namespace, tmp_path)
    variables = environment(
        tmp_path,
        GATEWAY_SERVICES_FILE="",
        GATEWAY_NAMESPACES=namespace,
        GATEWAY_NAMESPACE=namespace,
        GATEWAY_REQUIRE_TENANT="true",
        KUBECONFIG=str(kubeconfig),
    )
    async with (
        gateway_process(tmp_path, variables) as gateway,
        aiohttp.ClientSession(gateway.url) as session,
    ):
        assert await status_of(session) == 200
        await eventually(lambda: accepted(control_plane, "acme", namespace) == ("True", "Counts"))


async def test_the_life_of_a_tenant(
    control_plane: ControlPlane, namespace: str, engine: Engine, tmp_path: Path
) -> None:
    """Two gateways follow the AITenants of their namespace, and tell those that do not count."""
    control_plane.apply(resource("whisper", namespace))
    set_ready(control_plane, "whisper", namespace, engine.url)
    variables = environment(
        tmp_path,
        GATEWAY_SERVICES_FILE="",
        GATEWAY_NAMESPACES=namespace,
        GATEWAY_NAMESPACE=namespace,
        GATEWAY_RATE_LIMIT_PER_HOUR="100000",
        KUBECONFIG=str(control_plane.kubeconfig),
    )
    elsewhere = f"{namespace}-b"
    control_plane.kubectl("create", "namespace", elsewhere)
    async with gateway_here(variables) as session, gateway_here(variables) as other:

        async def change(status: int, spec: dict[str, Any], path: str = SPEECH) -> None:
            control_plane.apply(tenant("acme", namespace, **spec))
            for each in (session, other):
                await until_status(each, status, path)

        await until_status(session, 200)
        await until_status(other, 200)
        await change(403, {"suspend": True})
        await change(404, {"services": ["sdxl"]})
        await change(200, {"services": [f"{namespace}/whisper"]})
        hide = json.dumps({"spec": {"gateway": {"tenants": ["globex"]}}})
        control_plane.kubectl("patch", "aiservice/whisper", "-n", namespace, "--type=merge", "-p", hide)
        await until_status(session, 404)
        show = json.dumps({"spec": {"gateway": {"tenants": ["globex", "acme"]}}})
        control_plane.kubectl("patch", "aiservice/whisper", "-n", namespace, "--type=merge", "-p", show)
        await until_status(session, 200)

        key = "ais_" + "k" * 43
        entry = {"name": "ci", "sha256": key_hash(key)}
        control_plane.apply(tenant("acme", namespace, apiKeys=[entry]))
        await eventually(lambda: with_key(session, key, 200))
        control_plane.apply(tenant("acme", namespace, apiKeys=[{**entry, "expires": "2020-01-01T00:00:00Z"}]))
        await eventually(lambda: with_key(session, key, 401))

        await eventually(lambda: accepted(control_plane, "acme", namespace) == ("True", "Counts"))
        await asyncio.sleep(1.1)  # creation times are whole seconds
        control_plane.apply(tenant("again", namespace, tenant="acme", suspend=True))
        control_plane.apply(tenant("acme", elsewhere, suspend=True))
        await eventually(lambda: accepted(control_plane, "again", namespace) == ("False", "TenantTaken"))
        assert await status_of(session) == 200
        assert accepted(control_plane, "acme", elsewhere) is None, "another namespace's say nothing here"
        version = control_plane.get("-n", namespace, "aitenant", "again")["metadata"]["resourceVersion"]
        managers = control_plane.get("-n", namespace, "aitenant", "again", "--show-managed-fields")
        owners = {owner["manager"]: owner for owner in managers["metadata"]["managedFields"]}
        assert owners["aiservice-gateway"]["subresource"] == "status"
        assert owners["aiservice-gateway"]["operation"] == "Apply"

        control_plane.kubectl("delete", "aitenant/acme", "-n", namespace)
        await until_status(session, 403)
        await eventually(lambda: accepted(control_plane, "again", namespace) == ("True", "Counts"))
        settled = control_plane.get("-n", namespace, "aitenant", "again")["metadata"]["resourceVersion"]
        assert settled != version
        await asyncio.sleep(1)
        assert control_plane.get("-n", namespace, "aitenant", "again")["metadata"]["resourceVersion"] == settled
        control_plane.kubectl("delete", "aitenant/again", "-n", namespace)
        await until_status(other, 200)
    control_plane.kubectl("delete", "namespace", elsewhere, "--wait=false")


async def with_key(session: aiohttp.ClientSession, key: str, status: int) -> bool:
    async with session.post(SPEECH, json={}, headers={"Authorization": f"Bearer {key}"}) as answer:
        return answer.status == status


async def test_missing_rights_are_told_and_keep_it_unready(
    control_plane: ControlPlane, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kubeconfig = str(_limited(control_plane, namespace, tmp_path))
    variables = environment(tmp_path, GATEWAY_SERVICES_FILE="", KUBECONFIG=kubeconfig)  # all namespaces
    async with gateway_here(variables) as session:
        await eventually(lambda: "may not list and watch aiservices.aiservice.dev" in caplog.text)
        async with session.get("/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["dependencies"]["discovery"] is False
        async with session.get("/livez") as answer:
            assert answer.status == 200


def _limited(plane: ControlPlane, namespace: str, folder: Path) -> Path:
    """The kubeconfig of a service account with the rights that the chart gives the gateway in one namespace."""
    plane.kubectl("create", "serviceaccount", "gateway", "-n", namespace)
    subject = f"--serviceaccount={namespace}:gateway"
    for name, verbs, resources in (
        ("read", "list,watch", "aiservices.aiservice.dev,aitenants.aiservice.dev"),
        ("tell", "patch", "aitenants.aiservice.dev/status"),
    ):
        plane.kubectl("create", "role", name, "-n", namespace, f"--verb={verbs}", f"--resource={resources}")
        plane.kubectl("create", "rolebinding", name, "-n", namespace, f"--role={name}", subject)
    secret = plane.kubectl("create", "token", "gateway", "-n", namespace).strip()
    document = json.loads(plane.kubectl("config", "view", "--raw", "--flatten", "-o", "json"))
    for user in document["users"]:
        user["user"] = {"token": secret}
    path = folder / "kubeconfig.json"
    path.write_text(json.dumps(document))
    return path


@asynccontextmanager
async def following(plane: ControlPlane, namespace: str) -> AsyncIterator[tuple[Follower, Callable[[], list[Service]]]]:
    """A follower of one namespace, and what it has found."""
    configuration = client.Configuration()
    await config.load_kube_config(str(plane.kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
    registry = Registry()
    async with client.ApiClient(configuration) as api:
        follower = Follower(api, "aiservices", ServiceObjects(registry, namespace), namespace)
        running = asyncio.create_task(follower.run())
        yield follower, registry.services
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def make_resources(plane: ControlPlane, namespace: str, count: int) -> None:
    plane.apply(*(resource(f"s{number}", namespace) for number in range(count)))


async def test_a_list_of_several_pages(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiservice_gateway.discovery.follow._PAGE", 3)
    make_resources(control_plane, namespace, 8)
    async with following(control_plane, namespace) as (follower, services):
        await eventually(lambda: follower.synced)
        assert len(services()) == 8
        assert services()[0].tasks == (Task.SPEECH_TO_TEXT,)


async def test_a_watch_goes_on_where_it_ended(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server ends each watch after a second; nothing is listed again and nothing missed."""
    monkeypatch.setattr("aiservice_gateway.discovery.follow._WATCH_SECONDS", 1)
    lists = 0
    original = Follower._list

    async def counted(self: Follower) -> str:
        nonlocal lists
        lists += 1
        return await original(self)

    monkeypatch.setattr(Follower, "_list", counted)
    async with following(control_plane, namespace) as (follower, services):
        await eventually(lambda: follower.synced)
        for number in range(4):
            control_plane.apply(resource(f"s{number}", namespace))
            await asyncio.sleep(0.9)
        await eventually(lambda: len(services()) == 4)
    assert lists == 1


async def test_an_expired_watch_lists_again(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version from before the API server's memory: it answers 410, and what changed meanwhile is still seen."""
    make_resources(control_plane, namespace, 2)
    async with following(control_plane, namespace) as (follower, services):
        await eventually(lambda: len(services()) == 2)
        monkeypatch.setattr("aiservice_gateway.discovery.follow._SILENCE_SECONDS", 0.5)
        follower._version = "1"
        control_plane.kubectl("delete", "aiservice/s0", "-n", namespace)
        control_plane.apply(resource("s2", namespace))
        await eventually(lambda: [service.name for service in services()] == ["s1", "s2"])


async def test_a_silent_connection_is_given_up(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiservice_gateway.discovery.follow._SILENCE_SECONDS", 0.2)
    async with following(control_plane, namespace) as (follower, services):
        await eventually(lambda: follower.synced and not follower.connected)
        make_resources(control_plane, namespace, 1)
        await eventually(lambda: len(services()) == 1)
