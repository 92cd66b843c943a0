"""What the charts render, as a whole and in what matters most."""

import os
from pathlib import Path

import pytest
import yaml

from support import charts
from support.charts import Case, Manifest, only, template
from support.cluster import REPOSITORY, CommandError, run, tool

GOLDEN = REPOSITORY / "tests/data/charts"
OPERATOR = Case("aiservice-operator", "default")
EXTERNAL = Case("aiservice-gateway", "external")
BUNDLED = Case("aiservice-gateway", "bundled")
PLACEMENT = {
    "nodeSelector": {"pool": "system"},
    "tolerations": [{"key": "system", "operator": "Exists"}],
    "priorityClassName": "high",
    "imagePullSecrets": [{"name": "registry"}],
}


@pytest.mark.parametrize("case", charts.cases(), ids=str)
def test_golden(case: Case) -> None:
    """Update with AISERVICE_UPDATE_GOLDEN=1, and read the difference before it is committed."""
    manifests = [manifest for manifest in template(case) if manifest["kind"] != "CustomResourceDefinition"]
    manifests.sort(key=lambda one: (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]))
    text = yaml.safe_dump_all(manifests, width=120)
    golden = GOLDEN / f"{case}.yaml"
    if os.environ.get("AISERVICE_UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == {str(case) for case in charts.cases()}


@pytest.mark.parametrize("case", charts.cases(), ids=str)
def test_lint(case: Case) -> None:
    report = run(tool("helm"), "lint", "--strict", case.path, *case.arguments)
    assert "1 chart(s) linted, 0 chart(s) failed" in report


@pytest.mark.parametrize("case", charts.cases(), ids=str)
def test_rendered_text_is_clean(case: Case) -> None:
    text = run(tool("helm"), "template", case.chart, case.path, *case.arguments)
    assert not [line for line in text.splitlines() if line != line.rstrip()]
    assert "<no value>" not in text
    assert "%!" not in text  # what Go's printf leaves of a wrong argument


@pytest.mark.parametrize("case", charts.cases(), ids=str)
def test_every_object_is_labelled_and_placed(case: Case) -> None:
    for manifest in template(case):
        metadata = manifest["metadata"]
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "aiservice"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        cluster_wide = manifest["kind"] in {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
        assert ("namespace" in metadata) != cluster_wide, manifest["kind"]
    for name, pod in charts.pods(template(case)):
        labels = pod["metadata"]["labels"]
        # The operator takes pods with its own label for its children.
        assert labels.get("app.kubernetes.io/managed-by") != "aiservice-operator", name


@pytest.mark.parametrize("case", charts.cases(), ids=str)
def test_pods_are_restricted_with_a_read_only_root(case: Case) -> None:
    manifests = template(case)
    for _, pod in charts.pods(manifests):
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == 65532
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in charts.containers(manifests):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("case", charts.cases(), ids=str)
def test_only_the_operator_and_the_gateway_have_a_token(case: Case) -> None:
    for name, pod in charts.pods(template(case)):
        wanted = name.startswith("Deployment/") or name.endswith("-release")  # the operator's last work
        assert pod["spec"]["automountServiceAccountToken"] is wanted, name
    for account in charts.kinds(template(case), "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@pytest.mark.parametrize("case", charts.cases(), ids=str)
def test_images_are_tagged_with_the_version_unless_told_otherwise(case: Case) -> None:
    images = [container["image"] for container in charts.containers(template(case))]
    assert images
    for image in images:
        repository, _, tag = image.rpartition(":")
        assert repository
        assert tag
        assert not tag.startswith("latest")


@pytest.mark.parametrize("case", [OPERATOR, EXTERNAL, BUNDLED], ids=str)
def test_placement_reaches_every_pod(case: Case) -> None:
    for name, pod in charts.pods(template(case, values=PLACEMENT)):
        assert {key: pod["spec"].get(key) for key in PLACEMENT} == PLACEMENT, name


def test_selectors_find_their_pods_and_no_others() -> None:
    manifests = template(BUNDLED)
    labels = {name: pod["metadata"]["labels"] for name, pod in charts.pods(manifests)}
    assert len(labels) == 4
    for service in charts.kinds(manifests, "Service"):
        found = [name for name, has in labels.items() if service["spec"]["selector"].items() <= has.items()]
        assert [name.split("/")[1] for name in found] == [service["metadata"]["name"]]


@pytest.mark.parametrize(
    ("release", "override", "name"),
    [
        ("aiservice-operator", "", "aiservice-operator"),
        ("blue", "", "blue-aiservice-operator"),
        ("blue", "robot", "robot"),
    ],
)
def test_names_follow_the_release(release: str, override: str, name: str) -> None:
    text = run(tool("helm"), "template", release, OPERATOR.path, "--set", f"fullnameOverride={override}")
    assert only(list(yaml.safe_load_all(text)), "Deployment")["metadata"]["name"] == name


def registries(manifests: list[Manifest]) -> set[str]:
    return {container["image"].split("/")[0] for container in charts.containers(manifests)}


def test_one_value_moves_all_own_images_to_another_registry() -> None:
    registry = {"image": {"registry": "registry.example.com"}}
    assert registries(template(EXTERNAL, values=registry)) == {"registry.example.com"}
    assert registries(template(OPERATOR, values=registry)) == {"registry.example.com"}
    config = only(template(OPERATOR, values=registry), "ConfigMap", "aiservice-operator")["data"]["config.yaml"]
    assert "localhost" not in config


@pytest.mark.parametrize("case", [OPERATOR, EXTERNAL], ids=str)
@pytest.mark.parametrize(("replicas", "budgets"), [(1, 0), (2, 1), (5, 1)])
def test_a_disruption_budget_only_where_it_cannot_block_a_drain(case: Case, replicas: int, budgets: int) -> None:
    assert len(charts.kinds(template(case, values={"replicas": replicas}), "PodDisruptionBudget")) == budgets


def test_older_clusters_are_refused() -> None:
    for case in (OPERATOR, EXTERNAL):
        assert template(case, "--kube-version", "1.30.0")
        with pytest.raises(CommandError, match=r"incompatible with Kubernetes v1\.29\.0"):
            template(case, "--kube-version", "1.29.0")


def test_versions_agree() -> None:
    for part in ("operator", "gateway"):
        chart = yaml.safe_load((charts.CHARTS / f"aiservice-{part}/Chart.yaml").read_text())
        project = Path(REPOSITORY / part / "pyproject.toml").read_text()
        assert f'\nversion = "{chart["appVersion"]}"\n' in project
