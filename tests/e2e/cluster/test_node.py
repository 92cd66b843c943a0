import hashlib
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from localcluster.images import write_image
from support.cluster import CommandError, cluster_command, eventually
from support.node_cluster import NodeCluster, machine_settings, pod

GPU = "nvidia.com/gpu"


@pytest.fixture(scope="module")
def web(cluster: NodeCluster) -> NodeCluster:
    """The cluster with a web server on a volume behind a NodePort service, and a pod to call it from."""
    cluster.apply(claim("web"), web_server("web"), service("web"), pod("client", "sleep 3600"))
    cluster.wait("pod/web", "condition=Ready")
    cluster.wait("pod/client", "condition=Ready")
    return cluster


def test_status_is_all_well(cluster: NodeCluster) -> None:
    rows = eventually(lambda: cluster_command(cluster.name, "status")).splitlines()[1:]
    assert len(rows) == 12
    assert rows[-1].split() == ["cluster", "DNS", "-", "answers", "-"]


def test_pod_gets_a_volume_that_it_may_write(web: NodeCluster) -> None:
    volume = web.get("pvc", "web")["spec"]["volumeName"]
    assert (web.folder / "node/volumes" / volume / "index.html").read_text() == "hello\n"
    assert web.shell("web", "id -u; id -g").split() == ["65532", "0"]


@pytest.mark.parametrize("name", ["web", "web.default", "web.default.svc.cluster.local"])
def test_pod_reaches_a_service_by_name(web: NodeCluster, name: str) -> None:
    assert fetched(lambda: web.shell("client", f"timeout 5 wget -qO- http://{name}")) == "hello\n"


def test_name_outside_the_cluster_does_not_exist(web: NodeCluster) -> None:
    def refused() -> bool:
        with pytest.raises(CommandError) as error:
            web.shell("client", "nslookup example.com")
        return "NXDOMAIN" in str(error.value)

    eventually(refused)


def test_pod_reaches_the_api_server(web: NodeCluster) -> None:
    eventually(lambda: web.shell("client", "nc -w 5 kubernetes.default.svc 443 </dev/null && echo connected"))


def test_pod_reaches_itself_through_its_service(web: NodeCluster) -> None:
    assert fetched(lambda: web.shell("web", "timeout 5 wget -qO- http://web.default.svc")) == "hello\n"


def test_this_machine_reaches_node_port_service_and_pod(web: NodeCluster) -> None:
    spec = web.get("service", "web")["spec"]
    pod_address = web.get("pod", "web")["status"]["podIP"]
    for address, port in ((web.address, spec["ports"][0]["nodePort"]), (spec["clusterIP"], 80), (pod_address, 8080)):
        assert fetched(partial(get, address, port)) == "hello\n"


def test_port_forward_and_logs(web: NodeCluster) -> None:
    arguments = ["port-forward", "service/web", ":80"]
    command = [str(web.kubectl_path), f"--kubeconfig={web.kubeconfig}", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout is not None
            port = int(forward.stdout.readline().split()[2].rpartition(":")[2])
            assert fetched(partial(get, "127.0.0.1", port)) == "hello\n"
        finally:
            forward.terminate()
    assert web.kubectl("logs", "web") == "serving\n"


def test_pretended_gpus_are_counted(cluster: NodeCluster) -> None:
    for name in ("one", "two", "three"):
        limits = {"resources": {"limits": {GPU: "1"}}}
        cluster.apply(pod(name, "sleep 3600", container=limits))
        if name != "three":
            cluster.wait(f"pod/{name}", "condition=Ready")
    conditions = eventually(lambda: cluster.get("pod", "three")["status"].get("conditions"))
    assert f"Insufficient {GPU}" in conditions[0]["message"]
    cluster.kubectl("delete", "pod", "one", "two", "three")


def test_volume_goes_with_its_claim(cluster: NodeCluster) -> None:
    cluster.apply(claim("brief"), web_server("brief"))
    cluster.wait("pod/brief", "condition=Ready")
    volume = cluster.get("pvc", "brief")["spec"]["volumeName"]
    assert (cluster.folder / "node/volumes" / volume).is_dir()
    cluster.kubectl("delete", "pod/brief", "pvc/brief")
    eventually(lambda: not (cluster.folder / "node/volumes" / volume).exists())
    eventually(lambda: volume not in cluster.kubectl("get", "pv", "-o", "name"))


def test_claim_waits_for_its_first_pod(cluster: NodeCluster) -> None:
    cluster.apply(claim("idle"))
    event = eventually(lambda: cluster.get("events", "--field-selector=involvedObject.name=idle")["items"])[0]
    assert event["reason"] == "WaitForFirstConsumer"
    cluster.kubectl("delete", "pvc/idle")


def test_file_that_is_no_image_is_refused(cluster: NodeCluster, tmp_path: Path) -> None:
    archive = tmp_path / "text.tar"
    archive.write_text("no image")
    with pytest.raises(CommandError, match="could not load"):
        cluster_command(cluster.name, "load", str(archive))


def test_a_name_holds_the_archive_that_was_loaded_last(cluster: NodeCluster, tmp_path: Path) -> None:
    program = tmp_path / "busybox"
    programs, archives = {}, {}
    for version in ("old", "new"):
        program.write_bytes(Path("/bin/busybox").read_bytes() + version.encode())
        programs[version] = hashlib.sha256(program.read_bytes()).hexdigest()
        archives[version] = tmp_path / f"{version}.tar"
        with archives[version].open("wb") as file:
            write_image(file, program, "localhost/versions:1")
    for step, version in enumerate(("old", "new", "new", "old")):
        cluster_command(cluster.name, "load", str(archives[version]))
        container = {"image": "localhost/versions:1", "command": ["/busybox", "sha256sum", "/busybox"]}
        cluster.apply(pod(f"version-{step}", "", container=container, restartPolicy="Never"))
        cluster.wait(f"pod/version-{step}", "jsonpath={.status.phase}=Succeeded")
        assert cluster.kubectl("logs", f"version-{step}").split()[0] == programs[version]


def test_pods_come_back_after_the_node_was_killed(web: NodeCluster) -> None:
    os.kill(web.component("node"), signal.SIGKILL)
    eventually(lambda: not status_is_well(web))
    cluster_command(web.name, "up")
    web.wait("pod/web", "jsonpath={.status.containerStatuses[0].restartCount}=1")
    web.wait("pod/web", "condition=Ready")
    web.wait("pod/client", "condition=Ready")
    assert fetched(lambda: web.shell("client", "timeout 5 wget -qO- http://web")) == "hello\n"


def test_second_cluster_has_its_own_network_and_leaves_nothing(
    cluster: NodeCluster, start_cluster: Callable[..., NodeCluster]
) -> None:
    second = start_cluster("m")
    network = second.address.rpartition(".")[0].rpartition(".")[0]
    assert not cluster.address.startswith(network)
    second.apply(pod("sleeper", "sleep 3600"))
    second.wait("pod/sleeper", "condition=Ready")
    assert second.get("pod", "sleeper")["status"]["podIP"].startswith(network)
    interface = link_to(second.address)
    running = second.component("containerd")

    cluster_command(second.name, "down")

    assert not Path("/sys/class/net", interface).exists()
    assert not Path(f"/proc/{running}/exe").exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/*cluster-{interface.removeprefix('aiservice')}"))
    assert [entry.name for entry in second.folder.iterdir()] == ["logs"]
    # The kubelet of the first still runs, under the settings that it made.
    assert machine_settings()["vm/overcommit_memory"] == "1\n"
    assert status_is_well(cluster)


def test_down_puts_the_machines_settings_back(cluster: NodeCluster, machine_before: dict[str, str]) -> None:
    others = [name for name in cluster_command("any", "list").split() if name != cluster.name and has_node(name)]
    cluster_command(cluster.name, "down")
    if others:
        pytest.skip(f"clusters with a node still run: {others}")
    assert machine_settings() == machine_before


def claim(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
    }


def web_server(name: str) -> dict[str, Any]:
    """A pod that serves, on port 8080, a page that it wrote to the volume of its name."""
    container = {
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    }
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
    script = "echo serving; echo hello >/data/index.html; exec httpd -f -p 8080 -h /data"
    return pod(name, script, container=container, volumes=[volume])


def service(name: str) -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": 8080}]
    spec = {"type": "NodePort", "selector": {"app": name}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def fetched(fetch: Callable[[], str]) -> str:
    """The answer, once there is one: kube-proxy hears of a pod a moment after it is ready."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return fetch()
        except (CommandError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def get(address: str, port: int) -> str:
    connection = http.client.HTTPConnection(address, port, timeout=3)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def status_is_well(cluster: NodeCluster) -> bool:
    try:
        cluster_command(cluster.name, "status")
    except CommandError:
        return False
    return True


def has_node(name: str) -> bool:
    try:
        cluster_command(name, "address")
    except CommandError:
        return False
    return True


def link_to(address: str) -> str:
    """The interface of this machine through which it reaches an address."""
    output = subprocess.run(["ip", "route", "get", address], capture_output=True, text=True, check=True).stdout
    words = output.split()
    return words[words.index("dev") + 1]
