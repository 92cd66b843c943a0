"""What `helm uninstall` leaves: everything that serves, and nothing that could not be deleted without an operator."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.cluster import ControlPlane, eventually, run, tool
from support.installed import operator_process, release_caches
from support.operator import CONFIG
from support.rights import rights

Helm = Callable[..., str]
OURS = "aiservice.dev/in-use"
FOREIGN = "example.com/kept"
MODEL = {"http": {"files": [{"url": "http://127.0.0.1:9/model", "path": "model", "sha256": "0" * 64}]}}
QUICK = {"leaseSeconds": 12, "renewSeconds": 9, "retrySeconds": 1}


@pytest.fixture
def team(control_plane: ControlPlane, namespace: str) -> Iterator[str]:
    """A namespace with AIServices, beside the operator's."""
    name = f"{namespace}-team"
    control_plane.kubectl("create", "namespace", name)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def model_cache(name: str, namespace: str, *finalizers: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "finalizers": list(finalizers)}
    return {"apiVersion": "aiservice.dev/v1alpha1", "kind": "ModelCache", "metadata": metadata, "spec": MODEL}


def service(name: str, namespace: str, **model: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    spec = {"tasks": ["speech-to-text"], "profile": "cpu", **model}
    return {"apiVersion": "aiservice.dev/v1alpha1", "kind": "AIService", "metadata": metadata, "spec": spec}


def finalizers(control_plane: ControlPlane, namespace: str) -> dict[str, list[str]]:
    """The finalizers of each ModelCache."""
    caches = control_plane.get("modelcaches", "-n", namespace)["items"]
    return {cache["metadata"]["name"]: cache["metadata"].get("finalizers", []) for cache in caches}


def released(kubeconfig: Path, folder: Path, configuration: dict[str, Any], patience: str = "60") -> tuple[int, str]:
    """Runs `release` as an administrator: exit code, and what it said."""
    file = folder / "release.yaml"
    file.write_text(yaml.safe_dump(configuration))
    command = [sys.executable, "-m", "aiservice_operator", "release", "--config", str(file), "--patience", patience]
    environment = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "POD_NAME": "by-hand",
        "POD_NAMESPACE": "default",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr


class Uninstall(threading.Thread):
    """`helm uninstall` with its hooks, which waits for a Job that this test runs."""

    def __init__(self, control_plane: ControlPlane, release: str, namespace: str) -> None:
        super().__init__(daemon=True)
        self._connection = (f"--kubeconfig={control_plane.kubeconfig}", "--namespace", namespace)
        self._release = release
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            run(tool("helm"), "uninstall", self._release, *self._connection)
        except BaseException as error:  # noqa: BLE001 - raised again by the test, whatever it is
            self.error = error

    def finish(self) -> None:
        self.join(timeout=120)
        assert not self.is_alive(), "helm uninstall does not end"
        if self.error is not None:
            raise self.error


def test_uninstalling_lets_go_of_every_cache_and_a_namespace_goes_without_an_operator(
    control_plane: ControlPlane, restricted: str, team: str, helm: Helm, tmp_path: Path
) -> None:
    """The operator's process lives on meanwhile, as on a node that cannot be reached."""
    values = {"watch": {"namespaces": [team]}, "leaderElection": QUICK, "log": {"level": "INFO", "format": "text"}}
    helm("install", "op", "operator", values)
    name = "op-aiservice-operator"
    pod = control_plane.get("deployment", name, "-n", restricted)["spec"]["template"]["spec"]
    control_plane.kubectl("wait", "--for=condition=Established", "crd/modelcaches.aiservice.dev", "--timeout=20s")
    with operator_process(control_plane, restricted, pod, tmp_path / "op-0") as (operator, log):
        try:
            control_plane.apply(
                model_cache("mine", team, FOREIGN),
                model_cache("not-served", restricted, OURS),
                service("inline", team, model={**MODEL, "storage": {"size": "1Mi"}}),
                service("named", team, modelCacheRef={"name": "mine"}),
            )
            eventually(lambda: sorted(map(len, finalizers(control_plane, team).values())) == [1, 2], timeout=90)
            before = finalizers(control_plane, team)
            assert set(before["mine"]) == {OURS, FOREIGN}

            uninstall = Uninstall(control_plane, "op", restricted)
            uninstall.start()
            hook = eventually(lambda: hook_pod(control_plane, restricted, f"{name}-release"))
            account = f"{restricted}:{name}-release"
            assert rights(control_plane, account, team) == {
                ("modelcaches.aiservice.dev", "list"),
                ("modelcaches.aiservice.dev", "patch"),
            }
            assert rights(control_plane, account, "default") == set()
            with operator_process(control_plane, restricted, hook["spec"], tmp_path / "hook") as (job, said):
                assert job.wait(timeout=90) == 0, said.read_text()
            control_plane.patch_status(f"pod/{hook['metadata']['name']}", {"phase": "Succeeded"}, restricted)
            uninstall.finish()

            assert finalizers(control_plane, team) == {cache: [FOREIGN] if cache == "mine" else [] for cache in before}
            assert finalizers(control_plane, restricted) == {"not-served": [OURS]}
            assert "2 ModelCaches released" in said.read_text()
            assert len(control_plane.get("aiservices", "-n", team)["items"]) == 2
            assert left(control_plane, restricted, team) == []
            assert operator.wait(timeout=60) == 1, log.read_text()  # it has lost its Lease

            release_caches(control_plane, team)  # of the foreign finalizer
            control_plane.kubectl("delete", "namespace", team, "--timeout=60s")
        finally:
            release_caches(control_plane, restricted)
            release_caches(control_plane, team)


def hook_pod(control_plane: ControlPlane, namespace: str, job: str) -> Any:
    pods = control_plane.get("pods", "-n", namespace, "-l", f"batch.kubernetes.io/job-name={job}")["items"]
    return pods[0] if pods else None


def left(control_plane: ControlPlane, *namespaces: str) -> list[str]:
    """What of the release is still there; the CustomResourceDefinitions are meant to be."""
    wanted = "all,secrets,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets"
    labels = ("-l", "app.kubernetes.io/managed-by=Helm,app.kubernetes.io/instance=op", "-o", "name")
    found = [control_plane.kubectl("get", wanted, "-n", namespace, *labels) for namespace in namespaces]
    found.append(control_plane.kubectl("get", "clusterroles,clusterrolebindings", *labels))
    return "".join(found).split()


def test_nothing_is_released_while_an_operator_holds_the_lease(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    apply_crds(control_plane)
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": f"of-{namespace}", "namespace": "default"},
        "spec": {
            "holderIdentity": "an-operator",
            "leaseDurationSeconds": 3600,
            "acquireTime": "2026-11-25T12:00:00.000000Z",
            "renewTime": "2099-11-25T12:00:00.000000Z",
            "leaseTransitions": 1,
        },
    }
    control_plane.apply(lease, model_cache("held", namespace, OURS))
    election = {"name": f"of-{namespace}", **QUICK}
    configuration = {**CONFIG, "watch": {"namespaces": [namespace]}, "leaderElection": election}
    try:
        code, said = released(control_plane.kubeconfig, tmp_path, configuration, "2")
        assert code == 1
        assert f"an operator still held the Lease of-{namespace} after 2 s" in said
        assert "uninstall it or scale it to zero first" in said
        assert finalizers(control_plane, namespace) == {"held": [OURS]}
    finally:
        control_plane.kubectl("delete", "lease", f"of-{namespace}", "-n", "default")
        release_caches(control_plane, namespace)


def test_release_by_hand_without_leader_election(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    apply_crds(control_plane)
    others = model_cache("of-another-operator", namespace, OURS)
    served = [
        model_cache("held", namespace, FOREIGN, OURS),
        model_cache("kept", namespace, FOREIGN),
        model_cache("going", namespace, OURS),
    ]
    for cache in served:
        cache["metadata"]["labels"] = {"tier": "production"}
    control_plane.apply(others, *served)
    control_plane.kubectl("delete", "modelcache", "going", "-n", namespace, "--wait=false")
    configuration = {**CONFIG, "watch": {"namespaces": [namespace], "labels": {"tier": "production"}}}
    after = {"held": [FOREIGN], "kept": [FOREIGN], "of-another-operator": [OURS]}
    try:
        for expected in (2, 0):
            code, said = released(control_plane.kubeconfig, tmp_path, configuration)
            assert (code, f"{expected} ModelCaches released" in said) == (0, True), said
            assert finalizers(control_plane, namespace) == after
    finally:
        release_caches(control_plane, namespace)


def apply_crds(control_plane: ControlPlane) -> None:
    """As for tests of the operator: whoever owned them before."""
    folder = Path(__file__).parents[3] / "crds"
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(folder))
    control_plane.kubectl("wait", "--for=condition=Established", "-f", str(folder), "--timeout=30s")
