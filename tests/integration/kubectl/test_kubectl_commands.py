"""status, why, logs and cache ls, of services that a real operator serves, or fails to."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from support.cluster import ControlPlane
from support.fake_kubelet import crashing, download_failed, loading, untouched
from support.kube_api import wait_for
from support.kubelet_logs import KubeletLogs
from support.operator_world import World, model
from support.plugin import Plugin


def test_status_of_all_and_of_one(world: World, ais: Plugin) -> None:
    where = ("-n", world.namespace)
    world.serve("seen", replicas=2, model={**model("seen"), "storage": {"size": "20Gi"}})
    world.until_serving("seen")
    world.serve("refused", profile="nope")
    world.until("AIService", "refused", "Ready", "False", "UnknownProfile")

    table = ais("status", *where)
    assert table.code == 0, table.err
    head, *rows = table.out.splitlines()
    assert head.split() == ["NAME", "TASKS", "READY", "REASON", "PODS", "GPU", "MODEL", "CACHE", "URL", "AGE"]
    row = next(line for line in rows if line.startswith("seen "))
    column = {name: head.index(name) for name in ("READY", "REASON", "PODS", "CACHE", "URL")}
    assert [row[at:].split()[0] for at in column.values()] == [
        "True",
        "Serving",
        "2/2",
        "cached",
        f"http://seen.{world.namespace}.svc:7862",
    ]
    assert any(line.startswith("refused ") and "UnknownProfile" in line for line in rows)
    assert "\x1b" not in table.out

    everywhere = ais("status", "-A")
    assert everywhere.out.startswith("NAMESPACE")
    assert any(line.split()[:2] == [world.namespace, "seen"] for line in everywhere.out.splitlines())

    found = {item["name"]: item for item in ais("status", "-o", "json", *where).json}
    assert (found["seen"]["ready"], found["seen"]["ready_pods"], found["refused"]["reason"]) == (
        "True",
        2,
        "UnknownProfile",
    )

    detail = ais("status", "seen", *where).out
    assert detail.startswith("seen   Ready=True Serving\n")
    for expected in ("Conditions", "Last start", "2 of 2 pods ready", "speech-to-text:7862", "Bound, 20Gi"):
        assert expected in detail
    assert sum(1 for line in detail.splitlines() if line.split()[:1] == ["Pod"] and "serves on" in line) == 2


def test_why_one_is_ready(world: World, ais: Plugin) -> None:
    world.serve("fine")
    world.until_serving("fine")
    answer = ais("why", "fine", "-n", world.namespace)
    assert answer.code == 0
    assert answer.words.startswith("fine is ready, and has been for ")
    assert "1 pod serves speech-to-text on cpu-" in answer.words
    assert f"Requests go to http://fine.{world.namespace}.svc:7862." in answer.words
    assert "What to do" not in answer.out


def test_why_an_engine_crashes(world: World, ais: Plugin) -> None:
    world.kubelet.serve = crashing("CUDA error: no kernel image")
    world.serve("crashes")
    world.until("AIService", "crashes", "Ready", "False", "CrashLoopBackOff")
    answer = ais("why", "crashes", "-n", world.namespace)
    assert answer.code == 0
    assert "crashes is not ready for" in answer.words
    assert "exited with code 1: CUDA error: no kernel image" in answer.words
    assert f"kubectl ais logs crashes -n {world.namespace} --previous" in answer.words
    assert ais("why", "crashes", "-o", "json", "-n", world.namespace).json["reason"] == "CrashLoopBackOff"
    world.api.delete("AIService", "crashes")
    world.until_gone("AIService", "crashes")


def test_why_no_gpu_is_free(world: World, ais: Plugin) -> None:
    """Four GPUs, five pods; the scheduler's own words."""
    model = {"storage": {"accessMode": "ReadWriteMany"}}
    body = world.serve("crowd", profile="nvidia-l4", replicas=5)
    world.api.delete("AIService", "crowd")
    world.until_gone("AIService", "crowd")
    world.serve("crowd", profile="nvidia-l4", replicas=5, model={**body["spec"]["model"], **model})
    world.until("AIService", "crowd", "Ready", "False", "Unschedulable")
    answer = ais("why", "crowd", "-n", world.namespace)
    assert "Insufficient nvidia.com/gpu" in answer.words
    assert "spec.suspend: true stops a service" in answer.words
    assert "0/5" not in next(line for line in ais("status", "-n", world.namespace).out.splitlines() if "crowd" in line)
    world.api.delete("AIService", "crowd")
    world.until_gone("AIService", "crowd")


def test_why_a_download_fails_and_its_cache(world: World, ais: Plugin) -> None:
    world.kubelet.download = download_failed("Unauthorized", "401 for gated/model", retryable=False)
    world.serve("gated", model={**model("gated"), "storage": {"size": "20Gi"}})
    world.until("AIService", "gated", "Ready", "False", "Unauthorized")
    cache = world.cache_of("gated")
    answer = ais("why", "gated", "-n", world.namespace)
    assert "401 for gated/model" in answer.words
    assert f"kubectl delete job -n {world.namespace} -l app.kubernetes.io/instance={cache}" in answer.words

    listed = ais("cache", "ls", "-n", world.namespace)
    assert listed.code == 0, listed.err
    row = next(line for line in listed.out.splitlines() if line.startswith(cache))
    assert row.split()[:4] == [cache, "False", "http", "gated"]
    assert f"{cache} (20Gi)" in row
    as_json = {item["name"]: item for item in ais("cache", "ls", "-n", world.namespace, "-o", "json").json}
    assert as_json[cache]["usedBy"] == ["gated"]
    assert as_json[cache]["reason"] == "Unauthorized"


def test_logs_where_there_are_none(world: World, ais: Plugin) -> None:
    where = ("-n", world.namespace)
    world.kubelet.download = untouched
    world.serve("early")
    wait_for(lambda: world.api.list("Job", f"app.kubernetes.io/instance={world.cache_of('early')}"), "a download")
    answer = ais("logs", "early", *where)
    assert (answer.code, answer.out) == (1, "")
    assert "early has no pod, so there are no logs" in answer.err
    world.kubelet.download, world.kubelet.serve = loading, loading
    world.kubelet.reset()
    world.until_serving("early")
    answer = ais("logs", "early", "--previous", *where)
    assert (answer.code, "started a second time" in answer.err) == (1, True)


def test_logs_of_engines_and_of_the_download(world: World, ais: Plugin, printed: KubeletLogs) -> None:
    where = ("-n", world.namespace)
    printed.lines |= {"engine": ["loading", "ready", "served"], "downloader": ['{"event": "done"}']}
    world.serve("talks", profile="logs", replicas=2)
    world.until_serving("talks")
    pods = sorted(pod["metadata"]["name"] for pod in world.api.list("Pod", "app.kubernetes.io/instance=talks"))
    assert len(pods) == 2

    answer = ais("logs", "talks", *where)
    assert (answer.code, answer.err) == (0, "")
    assert sorted(answer.out.splitlines()) == [
        f"[pod/{pod}/engine] {line}" for pod in pods for line in ("loading", "ready", "served")
    ]
    for options in (["--tail", "1"], ["--tail", "1", "-f"]):
        answer = ais("logs", "talks", *options, *where)
        assert (answer.code, sorted(answer.out.splitlines())) == (0, [f"[pod/{pod}/engine] served" for pod in pods])
    assert printed.asked[-1][1]["follow"] == "true"

    download = ais("logs", "talks", "--download", *where)
    assert (download.code, download.err) == (0, "")
    (line,) = download.out.splitlines()
    assert line.startswith(f"[pod/{world.cache_of('talks')}-")
    assert line.endswith('/downloader] {"event": "done"}')


def test_logs_of_before_a_crash(world: World, ais: Plugin, printed: KubeletLogs) -> None:
    printed.lines["engine"], printed.earlier["engine"] = ["loading"], ["loading", "CUDA error"]
    world.kubelet.serve = crashing("CUDA error")
    world.serve("falls", profile="logs")
    world.until("AIService", "falls", "Ready", "False", "CrashLoopBackOff")
    answer = ais("logs", "falls", "--previous", "-n", world.namespace)
    assert (answer.code, answer.err) == (0, "")
    assert [line.split("/engine] ")[1] for line in answer.out.splitlines()] == ["loading", "CUDA error"]


def test_logs_of_a_node_that_does_not_answer_say_so(world: World, ais: Plugin) -> None:
    """Nobody serves logs on the node without GPUs; kubectl's own words are passed on, and its exit code."""
    world.serve("silent")
    world.until_serving("silent")
    answer = ais("logs", "silent", "-n", world.namespace)
    assert (answer.code, answer.out) == (1, "")
    assert f"/containerLogs/{world.namespace}/silent-" in answer.err
    assert "/engine" in answer.err


def test_logs_of_pods_that_have_none_do_not_keep_others_away(world: World, ais: Plugin) -> None:
    """There is no kubelet: all pods fail to give logs, and each of them was asked."""
    world.serve("pair", replicas=2)
    world.until_serving("pair")
    where = ("-n", world.namespace)
    pods = [pod["metadata"]["name"] for pod in world.api.list("Pod", "app.kubernetes.io/instance=pair")]
    assert len(pods) == 2
    answer = ais("logs", "pair", *where)
    assert answer.code == 1
    assert [name for name in pods if f"/{name}/engine" not in answer.err] == []
    followed = ais("logs", "pair", "--follow", *where)
    assert followed.code == 0
    assert [name for name in pods if f"/{name}/engine" not in followed.out] == []


def test_a_name_that_nothing_has(world: World, ais: Plugin) -> None:
    world.serve("whisper")
    for command in (["why", "wisper"], ["status", "wisper"], ["logs", "wisper"]):
        answer = ais(*command, "-n", world.namespace)
        assert (answer.code, answer.out) == (1, "")
        assert answer.err.strip() == (
            f"kubectl ais: there is no AIService wisper in namespace {world.namespace}; did you mean whisper?"
        )


def test_a_namespace_without_services(control_plane: ControlPlane, crds: None, namespace: str, ais: Plugin) -> None:
    answer = ais("status", "-n", namespace)
    assert (answer.code, answer.out, answer.err) == (0, "", f"There is no AIService in namespace {namespace}.\n")
    assert ais("status", "-n", namespace, "-o", "json").json == []
    assert "There is no ModelCache" in ais("cache", "ls", "-n", namespace).err
    assert "nor any other" in ais("why", "x", "-n", namespace).err


def test_a_service_that_no_operator_sees(
    control_plane: ControlPlane, crds: None, namespace: str, ais: Plugin, world: World
) -> None:
    body = {"apiVersion": "aiservice.dev/v1alpha1", "kind": "AIService", "metadata": {"name": "alone"}}
    spec = {"tasks": ["speech-to-text"], "profile": "cpu", "modelCacheRef": {"name": "mine"}}
    control_plane.apply({**body, "metadata": {"name": "alone", "namespace": namespace}, "spec": spec})
    answer = ais("why", "alone", "-n", namespace)
    assert "the operator has not looked at it yet" in answer.words
    assert "NotSeenYet" in ais("status", "-n", namespace).out


def test_a_cluster_that_is_not_there(control_plane: ControlPlane, ais: Plugin, tmp_path: Path) -> None:
    config = json.loads(control_plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    dead = tmp_path / "kubeconfig"
    dead.write_text(json.dumps(config))
    answer = ais("status", "--kubeconfig", str(dead))
    assert (answer.code, answer.out) == (4, "")
    assert "the cluster could not be asked; kubectl says:" in answer.err
    assert "Traceback" not in answer.err
    assert ais("status", "--context", "no-such-context").code == 4


def test_what_the_user_may_not_see_is_said(
    control_plane: ControlPlane, world: World, ais: Plugin, tmp_path: Path
) -> None:
    """A user who may read AIServices only."""
    name = f"reader-{uuid.uuid4().hex[:6]}"
    where = {"name": name, "namespace": world.namespace}
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": where}
    rules = [{"apiGroups": ["aiservice.dev"], "resources": ["aiservices"], "verbs": ["list"]}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    control_plane.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": where},
        {**rbac, "kind": "Role", "rules": rules},
        {**rbac, "kind": "RoleBinding", "roleRef": role, "subjects": [{"kind": "ServiceAccount", **where}]},
    )
    config = json.loads(control_plane.kubeconfig.read_text())
    token = control_plane.kubectl("create", "token", name, "-n", world.namespace).strip()
    config["users"][0]["user"] = {"token": token}
    kubeconfig = tmp_path / "reader"
    kubeconfig.write_text(json.dumps(config))
    world.serve("shown")
    world.until_serving("shown")
    for command in (["status"], ["why", "shown"], ["status", "shown"]):
        answer = ais(*command, "-n", world.namespace, "--kubeconfig", str(kubeconfig))
        assert answer.code == 0, answer.err
        assert "shown" in answer.out
        assert "deployments.apps is forbidden" in answer.out + answer.err
    refused = ais("cache", "ls", "-n", world.namespace, "--kubeconfig", str(kubeconfig))
    assert (refused.code, refused.out) == (4, "")
    assert "modelcaches.aiservice.dev is forbidden" in refused.err
    assert token not in refused.err


def test_a_download_in_progress_shows_in_the_table(world: World, ais: Plugin) -> None:
    world.kubelet.download = loading
    world.serve("slow")
    world.until("AIService", "slow", "Ready", "Unknown", "Downloading")
    row = next(line for line in ais("status", "-n", world.namespace).out.splitlines() if line.startswith("slow "))
    assert "Unknown" in row
    answer = ais("why", "slow", "-n", world.namespace)
    assert "slow is not ready yet, and is being worked on" in answer.words
    assert "--download -f" in answer.words
