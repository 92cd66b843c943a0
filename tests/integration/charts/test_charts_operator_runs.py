"""The real operator with nothing but the rights and the configuration that its chart gives it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.cluster import ControlPlane, eventually
from support.installed import operator_process, release_caches

Helm = Callable[..., str]


@pytest.fixture
def operator_log(control_plane: ControlPlane, restricted: str, helm: Helm, tmp_path: Path) -> Iterator[Path]:
    """Runs the operator as its ServiceAccount, watching the namespace; what it says goes to this file."""
    helm(
        "install", "op", "operator", {"watch": {"namespaces": [restricted]}, "log": {"level": "INFO", "format": "text"}}
    )
    pod = control_plane.get("deployment", "op-aiservice-operator", "-n", restricted)["spec"]["template"]["spec"]
    try:
        with operator_process(control_plane, restricted, pod, tmp_path / "op-0") as (process, log):
            yield log
            process.terminate()
            assert process.wait(timeout=30) == 0, log.read_text()
    finally:
        release_caches(control_plane, restricted)


def service(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    complete = {"tasks": ["speech-to-text"], "profile": "cpu", **spec}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "aiservice.dev/v1alpha1", "kind": "AIService", "metadata": metadata, "spec": complete}


def rollout(control_plane: ControlPlane, namespace: str, name: str) -> str:
    """Why the present rollout of a service replaces pods as it does."""
    status = control_plane.get("aiservice", name, "-n", namespace).get("status", {})
    return str(status.get("rollout", {}).get("reason", ""))


@pytest.fixture
def bound_claim(control_plane: ControlPlane, restricted: str) -> Iterator[str]:
    """A claim with a volume that an administrator made for it."""
    size, volume = "1Mi", f"volume-of-{restricted}"
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    control_plane.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {**common, "capacity": {"storage": size}, "hostPath": {"path": "/nowhere"}},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "mine", "namespace": restricted},
            "spec": {**common, "volumeName": volume, "resources": {"requests": {"storage": size}}},
        },
    )
    yield "mine"
    control_plane.kubectl("delete", "pv", volume, "--wait=false")


def test_the_granted_rights_are_enough(
    control_plane: ControlPlane, restricted: str, operator_log: Path, bound_claim: str
) -> None:
    def exists(*what: str) -> bool:
        return all(control_plane.kubectl("get", one, "-n", restricted, "-o", "name") for one in what)

    def only_name(kind: str) -> str:
        found = control_plane.kubectl("get", kind, "-n", restricted, "-o", "name").split()
        return found[0] if len(found) == 1 else ""

    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "licence", "namespace": restricted}}
    licence = {"name": "LICENCE", "valueFrom": {"secretKeyRef": {"name": "licence", "key": "key"}}}
    served = {"model": {"pvc": {"claimName": bound_claim}}, "profile": "nvidia-l4", "engine": {"env": [licence]}}
    file = {"url": "http://127.0.0.1:9/model", "path": "model", "sha256": "0" * 64}
    control_plane.apply(
        {**secret, "stringData": {"key": "one"}},
        service("downloaded", restricted, model={"http": {"files": [file]}}),
        service("refused", restricted, model={"http": {"files": [file]}}, profile="quantum"),
        service("served", restricted, **served, autoscaling={"max": 2}),
    )
    # The operator may still be starting.
    eventually(lambda: exists("deployment/served", "service/served", "serviceaccount/served"), timeout=90)
    eventually(lambda: exists("hpa/served", "pdb/served", "networkpolicy/served"))
    eventually(lambda: control_plane.get("deployment", "served", "-n", restricted)["status"].get("replicas"))
    # Nodes are looked at when a rollout begins on GPUs; what is no longer wanted goes.
    control_plane.apply(service("served", restricted, **served, precision="fp32"))
    eventually(lambda: "no node has a free nvidia.com/gpu" in rollout(control_plane, restricted, "served"))
    eventually(lambda: not control_plane.kubectl("get", "hpa", "-n", restricted, "-o", "name"))
    # A claim that is made for a download, its Job, status of both kinds, and an Event.
    job = eventually(lambda: only_name("jobs"))
    eventually(lambda: control_plane.get("aiservice", "refused", "-n", restricted).get("status"))
    eventually(lambda: "Rejected" in control_plane.kubectl("get", "events", "-n", restricted))
    eventually(
        lambda: all(cache.get("status") for cache in control_plane.get("modelcaches", "-n", restricted)["items"])
    )

    # Other hardware: the Job that has not begun is deleted and made anew.
    uid = control_plane.get(job, "-n", restricted)["metadata"]["uid"]
    control_plane.apply(service("downloaded", restricted, model={"http": {"files": [file]}}, profile="nvidia-l4"))
    eventually(lambda: control_plane.get(only_name("jobs"), "-n", restricted)["metadata"]["uid"] != uid)

    # The last user goes, and the cache with it.
    control_plane.kubectl("delete", "aiservice", "--all", "-n", restricted)
    eventually(lambda: not control_plane.kubectl("get", "modelcaches", "-n", restricted, "-o", "name"))
    text = operator_log.read_text()
    assert "forbidden" not in text.lower(), text
