"""Faults on the running demo: the status says what is wrong in words, and nothing hangs."""

from __future__ import annotations

import json
from typing import Any

from support.cluster import eventually
from support.demo import DEMO, SYSTEM, RunningDemo

WEIGHTS = f"http://weights.{DEMO}.svc.cluster.local"


def ai_service(name: str, spec: dict[str, Any]) -> str:
    """An AIService on a CPU that reuses the demo's own speech model unless the spec says otherwise."""
    return json.dumps(
        {
            "apiVersion": "aiservice.dev/v1alpha1",
            "kind": "AIService",
            "metadata": {"name": name, "namespace": DEMO},
            "spec": {"tasks": ["speech-to-text"], "profile": "cpu", "gateway": {"expose": False}, **spec},
        }
    )


def model_cache(name: str, spec: dict[str, Any]) -> str:
    return json.dumps(
        {
            "apiVersion": "aiservice.dev/v1alpha1",
            "kind": "ModelCache",
            "metadata": {"name": name, "namespace": DEMO},
            "spec": spec,
        }
    )


def holder(demo: RunningDemo) -> str:
    identity: str = demo.get("lease", "aiservice-operator", SYSTEM)["spec"].get("holderIdentity", "")
    return identity


def test_killing_the_acting_operator_hands_over(demo: RunningDemo) -> None:
    before = holder(demo)
    pod = next(
        name
        for name in demo.kubectl("-n", SYSTEM, "get", "pods", "-o", "name").split()
        if name.removeprefix("pod/") in before
    )
    demo.kubectl("-n", SYSTEM, "delete", pod, "--grace-period=0", "--force")
    demo.kubectl("-n", DEMO, "delete", "service", "speech-to-text")
    eventually(lambda: holder(demo) not in ("", before) and demo.get("service", "speech-to-text"), timeout=90)


def test_a_deleted_deployment_comes_back_and_serves(demo: RunningDemo) -> None:
    before = demo.get("deployment", "image-to-text")["metadata"]["uid"]
    demo.kubectl("-n", DEMO, "delete", "deployment", "image-to-text")
    eventually(
        lambda: demo.get("deployment", "image-to-text").get("metadata", {}).get("uid", before) != before, timeout=60
    )
    eventually(lambda: demo.condition("aiservice", "image-to-text", "Ready").get("status") == "True", timeout=120)


def test_an_edited_child_is_put_right(demo: RunningDemo) -> None:
    port = '[{"op": "replace", "path": "/spec/ports/0/port", "value": 9999}]'
    demo.kubectl("-n", DEMO, "patch", "service", "speech-to-text", "--type=json", "-p", port)
    eventually(lambda: demo.get("service", "speech-to-text")["spec"]["ports"][0]["port"] == 7862, timeout=60)


def test_an_engine_that_cannot_start_says_why(demo: RunningDemo) -> None:
    cache = demo.get("aiservice", "speech-to-text")["status"]["modelCache"]
    spec = {"modelCacheRef": {"name": cache}, "engine": {"args": ["--precision=fp16"]}}
    demo.kubectl("apply", "-f", "-", stdin=ai_service("broken", spec))
    eventually(lambda: "fp16" in demo.condition("aiservice", "broken", "Ready").get("message", ""), timeout=90)
    assert demo.condition("aiservice", "broken", "Ready")["status"] == "False"
    demo.kubectl("-n", DEMO, "delete", "aiservice", "broken", "--timeout=60s")
    eventually(lambda: not demo.get("deployment", "broken"), timeout=30)
    assert demo.get("modelcache", cache), "the cache is still used by speech-to-text"


def test_a_download_that_is_not_there_says_so(demo: RunningDemo) -> None:
    files = [{"url": f"{WEIGHTS}/missing.pt", "path": "missing.pt", "sha256": "0" * 64}]
    demo.kubectl("apply", "-f", "-", stdin=model_cache("missing", {"http": {"files": files}}))
    eventually(lambda: demo.condition("modelcache", "missing", "Downloaded").get("reason") == "NotFound", timeout=90)
    assert "missing.pt" in demo.condition("modelcache", "missing", "Downloaded")["message"]
    demo.kubectl("-n", DEMO, "delete", "modelcache", "missing", "--timeout=60s")
    eventually(lambda: not demo.get("pvc", "missing"), timeout=60)


def test_a_wrong_checksum_is_never_served(demo: RunningDemo) -> None:
    files = [{"url": f"{WEIGHTS}/ocr/det/inference.yml", "path": "inference.yml", "sha256": "0" * 64}]
    demo.kubectl("apply", "-f", "-", stdin=model_cache("altered", {"http": {"files": files}}))
    eventually(
        lambda: demo.condition("modelcache", "altered", "Downloaded").get("reason") == "ChecksumMismatch", timeout=90
    )
    assert demo.condition("modelcache", "altered", "Ready")["status"] == "False"
    demo.kubectl("-n", DEMO, "delete", "modelcache", "altered", "--timeout=60s")


def test_a_volume_that_cannot_bind_says_so_and_does_not_wedge_deletion(demo: RunningDemo) -> None:
    files = [{"url": f"{WEIGHTS}/ocr/det/inference.yml", "path": "inference.yml", "sha256": "0" * 64}]
    spec = {"http": {"files": files}, "storage": {"size": "1Gi", "storageClassName": "no-such-class"}}
    demo.kubectl("apply", "-f", "-", stdin=model_cache("unbound", spec))
    eventually(
        lambda: "no-such-class" in demo.condition("modelcache", "unbound", "StorageBound").get("message", ""),
        timeout=60,
    )
    demo.kubectl("-n", DEMO, "delete", "modelcache", "unbound", "--timeout=60s")


def test_zero_replicas_is_idle_and_ready(demo: RunningDemo) -> None:
    demo.kubectl("-n", DEMO, "scale", "aiservice/image-to-text", "--replicas=0")
    eventually(lambda: demo.condition("aiservice", "image-to-text", "Ready").get("reason") == "Idle", timeout=60)
    assert demo.condition("aiservice", "image-to-text", "Ready")["status"] == "True"
    demo.kubectl("-n", DEMO, "scale", "aiservice/image-to-text", "--replicas=1")
    eventually(lambda: demo.get("aiservice", "image-to-text")["status"].get("readyReplicas") == 1, timeout=120)


def test_the_namespace_goes_whole(demo: RunningDemo) -> None:
    """Last of the file: it removes what the other tests use."""
    demo.kubectl("delete", "namespace", DEMO, "--timeout=120s")
    left = demo.kubectl("get", "ais,mc,pvc,jobs,deployments,pods", "--all-namespaces", "-o", "name")
    assert "speech-to-text" not in left
    assert "aiservice.dev" not in left
