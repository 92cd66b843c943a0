"""Pods from EndpointSlices of a real API server, as the gateway's own service account.

Kubernetes takes no loopback address for a pod, so the engines of these tests listen on this machine's own.
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.cluster import REPOSITORY, ControlPlane
from support.gateway import Engine, bearer, environment, eventually, gateway_here, running_engine

SPEECH = "/api/speech-to-text"
READY = {"ready": True, "serving": True, "terminating": False}
ENDING = {"ready": False, "serving": True, "terminating": True}


@pytest.fixture(scope="session", autouse=True)
def crds(control_plane: ControlPlane) -> None:
    for path in sorted((REPOSITORY / "crds").glob("*.yaml")):
        control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(path))
        control_plane.kubectl("wait", "--for=condition=Established", f"crd/{path.stem}", "--timeout=30s")


def own_address() -> str:
    """An address of this machine that is not a loopback one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.51.100.1", 9))
        address: str = probe.getsockname()[0]
    return address


@pytest.fixture
async def engines() -> AsyncIterator[list[Engine]]:
    """The Service's own address, and two pods."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running_engine(host=own_address())) for _ in range(3)]


class World:
    """One AIService, its Service's slices, and a gateway."""

    def __init__(self, plane: ControlPlane, namespace: str, engines: list[Engine], folder: Path) -> None:
        self.plane = plane
        self.namespace = namespace
        self.service, *self.pods = engines
        self.variables = environment(
            folder, GATEWAY_SERVICES_FILE="", GATEWAY_NAMESPACES=namespace, GATEWAY_NAMESPACE=namespace,
            GATEWAY_RATE_LIMIT_PER_HOUR="100000", KUBECONFIG=str(self._kubeconfig(folder, pods=True)),
        )  # fmt: skip
        self.folder = folder

    def apply(self) -> None:
        spec = {"tasks": ["speech-to-text"], "modelCacheRef": {"name": "whisper"}, "profile": "cpu"}
        metadata = {"name": "whisper", "namespace": self.namespace}
        self.plane.apply(
            {"apiVersion": "aiservice.dev/v1alpha1", "kind": "AIService", "metadata": metadata, "spec": spec}
        )
        condition = {
            "type": "Available", "status": "True", "reason": "Available", "message": "by a test",
            "lastTransitionTime": "2026-11-23T07:00:00Z", "observedGeneration": 1,
        }  # fmt: skip
        status = {"endpoints": {"speech-to-text": self.service.url}, "conditions": [condition]}
        self.plane.patch_status("aiservice/whisper", status, self.namespace)

    def slices(self, *pods: tuple[Engine, dict[str, bool]]) -> None:
        """Writes one slice a pod, as their ports differ."""
        for number, (engine, conditions) in enumerate(pods):
            host, port = engine.url.removeprefix("http://").split(":")
            labels = {
                "kubernetes.io/service-name": "whisper",
                "app.kubernetes.io/managed-by": "aiservice-operator",
                "endpointslice.kubernetes.io/managed-by": "tests",
            }
            self.plane.apply(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {"name": f"whisper-{number}", "namespace": self.namespace, "labels": labels},
                    "addressType": "IPv4",
                    "ports": [{"name": "speech-to-text", "port": int(port), "protocol": "TCP"}],
                    "endpoints": [
                        {
                            "addresses": [host],
                            "conditions": conditions,
                            "targetRef": {"kind": "Pod", "name": f"p{number}", "uid": f"uid-{number}"},
                        }
                    ],
                }
            )

    def restrict(self, *, pods: bool) -> None:
        """Sets what the service account may do, as the chart does."""
        rules: list[dict[str, Any]] = [
            {"apiGroups": ["aiservice.dev"], "resources": ["aiservices", "aitenants"], "verbs": ["list", "watch"]}
        ]
        if pods:
            rules.append(
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
            )
        metadata = {"name": "gateway", "namespace": self.namespace}
        self.plane.apply(
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules}
        )

    def _kubeconfig(self, folder: Path, *, pods: bool) -> Path:
        self.plane.kubectl("create", "serviceaccount", "gateway", "-n", self.namespace)
        self.restrict(pods=pods)
        subject = f"--serviceaccount={self.namespace}:gateway"
        self.plane.kubectl("create", "rolebinding", "gateway", "-n", self.namespace, "--role=gateway", subject)
        document = json.loads(self.plane.kubectl("config", "view", "--raw", "--flatten", "-o", "json"))
        secret = self.plane.kubectl("create", "token", "gateway", "-n", self.namespace).strip()
        for user in document["users"]:
            user["user"] = {"token": secret}
        path = folder / "kubeconfig.json"
        path.write_text(json.dumps(document))
        return path


@pytest.fixture
def world(control_plane: ControlPlane, namespace: str, engines: list[Engine], tmp_path: Path) -> World:
    made = World(control_plane, namespace, engines, tmp_path)
    made.apply()
    return made


async def ask(client: aiohttp.ClientSession) -> int:
    async with client.post(SPEECH, json={}, headers=bearer()) as answer:
        await answer.read()
        return answer.status


async def reached(client: aiohttp.ClientSession, *engines: Engine, others: list[Engine]) -> None:
    """Waits until requests go to some engines and to no others."""

    async def look() -> bool:
        for engine in (*engines, *others):
            engine.seen.clear()
        statuses = [await ask(client) for _ in range(4)]
        return set(statuses) == {200} and all(engine.seen for engine in engines) and not any(e.seen for e in others)

    await eventually(look)


async def followed(client: aiohttp.ClientSession) -> bool:
    async with client.get("/metrics") as answer:
        return "aiservice_gateway_pods_followed 1.0" in await answer.text()


async def test_requests_follow_the_pods(world: World) -> None:
    first, second = world.pods
    async with gateway_here(world.variables) as client:
        await reached(client, world.service, others=world.pods)  # no slice yet
        world.slices((first, READY), (second, READY))
        await reached(client, first, second, others=[world.service])
        assert await followed(client)
        world.slices((first, READY), (second, ENDING))
        await reached(client, first, others=[world.service, second])
        world.slices((first, ENDING), (second, ENDING))
        await reached(client, first, second, others=[world.service])  # better than none
        world.slices((first, {**ENDING, "serving": False}), (second, {**ENDING, "serving": False}))

        async def none() -> bool:
            return await ask(client) == 503

        await eventually(none)
        world.plane.kubectl("delete", "endpointslices", "--all", "-n", world.namespace)
        await reached(client, world.service, others=world.pods)


async def test_without_the_right_kubernetes_picks_the_pod(world: World, caplog: pytest.LogCaptureFixture) -> None:
    first, second = world.pods
    world.slices((first, READY), (second, READY))
    world.restrict(pods=False)
    async with gateway_here(world.variables) as client:
        await reached(client, world.service, others=world.pods)
        await eventually(lambda: "may not list and watch endpointslices.discovery.k8s.io" in caplog.text)
        assert not await followed(client)
        async with client.get("/health") as answer:
            assert (await answer.json())["status"] == "healthy"
        world.restrict(pods=True)  # taken up without a restart
        await reached(client, first, second, others=[world.service])
    assert caplog.text.count("may not list and watch endpointslices") <= 2


async def test_pods_are_not_followed_where_that_is_not_wanted(world: World) -> None:
    world.slices((world.pods[0], READY))
    async with gateway_here(world.variables | {"GATEWAY_FOLLOW_PODS": "false"}) as client:
        await reached(client, world.service, others=world.pods)
        assert not await followed(client)
