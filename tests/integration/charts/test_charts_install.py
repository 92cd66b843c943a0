"""The charts on a real API server, by the real Helm."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import charts
from support.charts import Case, Manifest
from support.cluster import REPOSITORY, CommandError, ControlPlane, eventually

Helm = Callable[..., str]
KEY = "f0rChartTests-Wc7kQz2nVb9xLd4mT8"
BUNDLED = {
    "auth": {"jwtSecret": KEY},
    "postgresql": {"bundled": {"enabled": True}},
    "redis": {"bundled": {"enabled": True}},
}


@pytest.mark.parametrize("case", charts.cases(), ids=str)
def test_the_api_server_takes_every_object_without_a_warning(
    case: Case, control_plane: ControlPlane, restricted: str
) -> None:
    manifests = [
        place(manifest, restricted)
        for manifest in charts.template(case, namespace=restricted)
        if manifest["kind"] != "ServiceMonitor"  # the Prometheus Operator is not there
    ]
    options = ("--server-side", "--force-conflicts", "--dry-run=server", "--warnings-as-errors", "--validate=strict")
    printed = control_plane.kubectl("apply", *options, "-f", "-", stdin=yaml.safe_dump_all(manifests))
    assert len(printed.splitlines()) == len(manifests)


def place(manifest: Manifest, namespace: str) -> Manifest:
    """Puts what belongs into the teams' namespaces, which are not there, into the test's own."""
    metadata = manifest["metadata"]
    if metadata.get("namespace", "").startswith("team-"):
        metadata |= {"namespace": namespace, "name": f"{metadata['name']}-{metadata['namespace']}"}
    return manifest


@pytest.mark.parametrize("case", charts.cases(), ids=str)
def test_pods_pass_the_restricted_pod_security_level(case: Case, control_plane: ControlPlane, restricted: str) -> None:
    """The dry run of a Deployment only warns; here the pods themselves are asked for."""
    for name, template in charts.pods(charts.template(case, namespace=restricted)):
        spec = {**template["spec"], "priorityClassName": "", "serviceAccountName": "default"}
        labels = template["metadata"]["labels"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "probe", "namespace": restricted, "labels": labels},
            "spec": with_claims_as_scratch(spec),
        }
        created = control_plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
        assert "pod/probe created" in created, name


def with_claims_as_scratch(spec: dict[str, Any]) -> dict[str, Any]:
    """A StatefulSet's claims are volumes of its pods: without the StatefulSet an empty one stands in."""
    volumes = spec["volumes"]
    mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
    missing = mounted - {volume["name"] for volume in volumes}
    return {**spec, "volumes": [*volumes, *({"name": name, "emptyDir": {}} for name in missing)]}


def owned(control_plane: ControlPlane, namespace: str) -> set[str]:
    """What is in a namespace and carries Helm's label."""
    wanted = "all,secrets,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets,ingresses"
    names = control_plane.kubectl(
        "get", wanted, "-n", namespace, "-l", "app.kubernetes.io/managed-by=Helm", "-o", "name"
    )
    return set(names.split())


def test_the_operator_installs_upgrades_and_leaves_the_crds(
    control_plane: ControlPlane, restricted: str, helm: Helm
) -> None:
    release = f"{restricted}-operator"
    notes = helm("install", release, "operator")
    name = f"{release}-aiservice-operator"
    assert f"rollout status deployment/{name}" in notes
    control_plane.kubectl("wait", "--for=condition=Established", "crd/aiservices.aiservice.dev", "--timeout=20s")
    deployment = control_plane.get("deployment", name, "-n", restricted)
    before = deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    helm("upgrade", release, "operator", {"replicas": 1, "log": {"level": "DEBUG"}})
    deployment = control_plane.get("deployment", name, "-n", restricted)
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"] != before
    assert f"poddisruptionbudget.policy/{name}" not in owned(control_plane, restricted)

    helm("uninstall", release)
    eventually(lambda: not owned(control_plane, restricted))
    assert control_plane.kubectl("get", "clusterrole,clusterrolebinding", "-o", "name").count(release) == 0
    assert control_plane.kubectl("get", "crd/aiservices.aiservice.dev", "crd/modelcaches.aiservice.dev", "-o", "name")


def test_an_upgrade_of_the_chart_upgrades_the_crds(
    control_plane: ControlPlane, restricted: str, helm: Helm, tmp_path: Path
) -> None:
    """What Helm never does for a `crds/` folder."""
    release = f"{restricted}-operator"
    shutil.copytree(charts.CHARTS / "aiservice-operator", tmp_path / "aiservice-operator")
    file = tmp_path / "aiservice-operator/files/crds/modelcaches.aiservice.dev.yaml"
    crd = yaml.safe_load(file.read_text())
    today = crd["spec"]["names"]["categories"]
    crd["spec"]["names"]["categories"] = [*today, "former"]
    file.write_text(yaml.safe_dump(crd))

    def categories() -> object:
        return control_plane.get("crd/modelcaches.aiservice.dev")["spec"]["names"]["categories"]

    helm("install", release, "operator", charts=tmp_path)
    assert categories() == [*today, "former"]
    helm("upgrade", release, "operator")
    assert categories() == today


def test_the_gateway_keeps_its_passwords_and_replaces_its_migration(
    control_plane: ControlPlane, restricted: str, helm: Helm
) -> None:
    def secret(name: str) -> dict[str, str]:
        data = control_plane.get("secret", f"gw-aiservice-gateway-{name}", "-n", restricted)["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def jobs() -> list[str]:
        return control_plane.kubectl("get", "jobs", "-n", restricted, "-o", "name").split()

    helm("install", "gw", "gateway", BUNDLED)
    first, job = {name: secret(name) for name in ("postgresql", "redis")}, jobs()
    assert first["postgresql"]["password"] in first["postgresql"]["DATABASE_URL"]
    assert len(job) == 1

    helm("upgrade", "gw", "gateway", BUNDLED | {"rateLimitPerHour": 5})
    assert {name: secret(name) for name in first} == first
    assert jobs() == job

    helm("upgrade", "gw", "gateway", BUNDLED | {"image": {"tag": "0.1.1"}})
    eventually(lambda: len(jobs()) == 1)
    assert jobs() != job

    # One that has failed for good is deleted, and the upgrade repeated.
    control_plane.kubectl("delete", *jobs(), "-n", restricted)
    helm("upgrade", "gw", "gateway", BUNDLED | {"image": {"tag": "0.1.1"}})
    assert len(jobs()) == 1

    helm("uninstall", "gw")
    eventually(lambda: not owned(control_plane, restricted))
    assert control_plane.kubectl("get", "clusterrole", "-o", "name").count("gw-aiservice-gateway") == 0


def test_a_refused_release_leaves_nothing(control_plane: ControlPlane, restricted: str, helm: Helm) -> None:
    with pytest.raises(CommandError, match="the gateway needs the key that signs JWTs"):
        helm("install", "gw", "gateway")
    assert owned(control_plane, restricted) == set()
    assert "sh.helm.release" not in control_plane.kubectl("get", "secrets", "-n", restricted, "-o", "name")


def test_an_installation_that_is_rendered_and_applied(
    control_plane: ControlPlane, restricted: str, tmp_path: Path
) -> None:
    """As docs/install.md says, with its kustomization."""
    rendered = charts.template(Case("aiservice-operator", "default"), "--no-hooks", namespace=restricted)
    assert "Job" not in {one["kind"] for one in rendered}
    (tmp_path / "install.yaml").write_text(yaml.safe_dump_all(rendered))
    guide = (REPOSITORY / "docs/install.md").read_text()
    kustomization = yaml.safe_load(guide.partition("# kustomization.yaml\n")[2].partition("```")[0])
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({**kustomization, "namespace": restricted}))

    built = control_plane.kubectl("kustomize", str(tmp_path))
    deployment = charts.only([one for one in yaml.safe_load_all(built) if one], "Deployment")
    assert deployment["spec"]["replicas"] == 3
    options = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
    printed = control_plane.kubectl("apply", *options, "-f", "-", stdin=built)
    assert len(printed.splitlines()) == len(rendered)
