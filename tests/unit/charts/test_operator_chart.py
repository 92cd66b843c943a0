"""The operator's chart: its configuration, CustomResourceDefinitions and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from aiservice_operator import settings
from support import charts
from support.charts import Case, kinds, only, template
from support.cluster import REPOSITORY, CommandError

DEFAULT = Case("aiservice-operator", "default")
CRDS = REPOSITORY / "crds"


def configuration(tmp_path: Path, case: Case = DEFAULT, **values: Any) -> settings.Settings:
    """The rendered configuration as the operator itself reads it."""
    file = tmp_path / "config.yaml"
    file.write_text(only(template(case, values=values), "ConfigMap")["data"]["config.yaml"])
    return settings.load(file)


def test_the_operator_reads_the_default_configuration(tmp_path: Path) -> None:
    read = configuration(tmp_path)
    assert read.watch.namespaces == []
    assert read.images == {
        "speech-recognition": "localhost/aiservice/speech-recognition:0.1.0",
        "vision": "localhost/aiservice/vision:0.1.0",
    }
    assert read.download == settings.Download()
    assert read.leader_election == settings.LeaderElection()
    assert read.probes.port == 8080
    assert read.log.format == "json"


def test_default_profiles(tmp_path: Path) -> None:
    profiles = configuration(tmp_path).profiles
    assert set(profiles) >= {"cpu", "nvidia-t4", "nvidia-l4", "nvidia-a100"}
    assert profiles["cpu"].gpu is None
    assert profiles["cpu"].tolerations == []
    for name in set(profiles) - {"cpu"}:
        gpu = profiles[name].gpu
        assert gpu is not None
        assert (gpu.resource, gpu.count) == ("nvidia.com/gpu", 1)
        assert list(profiles[name].node_selector) == ["nvidia.com/gpu.product"]
        assert profiles[name].tolerations == [
            settings.Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
        ]


def test_the_operator_reads_every_value(tmp_path: Path) -> None:
    read = configuration(tmp_path, Case("aiservice-operator", "full"))
    assert read.images == {
        "speech-recognition": ("registry.example.com/team/aiservice/speech-recognition:0.1.0"),
        "vision": "mirror.example.com/aiservice/vision:9.9.9",
        "diffusion": "registry.example.com/team/acme/diffusion:2",
    }
    assert read.image_pull_policy == "Always"
    assert read.image_pull_secrets == ["registry"]
    assert "nvidia-t4" not in read.profiles
    assert read.profiles["nvidia-l4"].node_selector == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert read.profiles["nvidia-h100"].runtime_class_name == "nvidia"
    assert read.download.backoff_limit == 2
    assert read.leader_election.name == "aiservice-operator"
    assert read.log.level == "DEBUG"


def test_the_cuda_flavour_is_for_engines_without_a_tag(tmp_path: Path) -> None:
    read = configuration(tmp_path, engineFlavour="cuda", engines={"vision": {"tag": "7"}})
    assert read.images == {
        "speech-recognition": "localhost/aiservice/speech-recognition:0.1.0-cuda",
        "vision": "localhost/aiservice/vision:7",
    }
    assert read.download.image == "localhost/aiservice/model-downloader:0.1.0"


def test_a_change_of_the_configuration_makes_new_pods() -> None:
    def checksum(**values: Any) -> str:
        annotations = only(template(DEFAULT, values=values), "Deployment")["spec"]["template"]["metadata"][
            "annotations"
        ]
        return str(annotations["checksum/config"])

    assert checksum() == checksum(replicas=3)
    assert checksum() != checksum(log={"level": "DEBUG"})


@pytest.mark.parametrize("source", sorted(CRDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_crds_are_the_generated_ones_and_stay(source: Path) -> None:
    wanted = yaml.safe_load(source.read_text())
    rendered = only(template(DEFAULT), "CustomResourceDefinition", wanted["metadata"]["name"])
    assert rendered["spec"] == wanted["spec"]
    assert rendered["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_crds_can_go_with_the_release_or_be_left_out() -> None:
    temporary = kinds(template(DEFAULT, values={"crds": {"keep": False}}), "CustomResourceDefinition")
    assert len(temporary) == len(list(CRDS.glob("*.yaml")))
    assert not any(
        "annotations" in crd["metadata"] and "helm.sh/resource-policy" in crd["metadata"]["annotations"]
        for crd in temporary
    )
    assert kinds(template(DEFAULT, values={"crds": {"install": False}}), "CustomResourceDefinition") == []


def test_roles_follow_the_namespaces() -> None:
    everywhere = template(DEFAULT)
    assert only(everywhere, "ClusterRoleBinding")["subjects"][0]["name"] == "aiservice-operator"
    some = template(DEFAULT, values={"watch": {"namespaces": ["team-a", "team-b"]}})
    assert kinds(some, "ClusterRoleBinding") == []
    roles = [one for one in kinds(some, "Role") if one["metadata"]["name"] == "aiservice-operator"]
    assert [one["metadata"]["namespace"] for one in roles] == ["team-a", "team-b"]
    assert [one["rules"] for one in roles] == [only(everywhere, "ClusterRole", "aiservice-operator")["rules"]] * 2


def test_no_role_grants_secrets_or_wildcards() -> None:
    for role in kinds(template(DEFAULT), "ClusterRole", "Role"):
        for rule in role["rules"]:
            assert not {"secrets", "configmaps", "*"} & set(rule["resources"])
            assert "*" not in rule["verbs"] + rule["apiGroups"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"replicas": 2, "leaderElection": {"enabled": False}}, "set replicas to 1 or turn leader election on"),
        ({"leaderElection": {"leaseSeconds": 5}}, "leaseSeconds must be above renewSeconds"),
        ({"leaderElection": {"retrySeconds": 9}}, "renewSeconds above 1.2 x retrySeconds"),
        ({"serviceAccount": {"create": False}}, "set serviceAccount.name to a ServiceAccount that exists"),
        ({"replica": 1}, "additional properties 'replica' not allowed"),
        ({"image": {"tga": "1"}}, "additional properties 'tga' not allowed"),
        ({"replicas": "two"}, "got string, want integer"),
        ({"engines": {"whisper": {"repository": "x"}}}, "at '/engines': additional properties 'whisper' not allowed"),
        ({"profiles": {"L4": {}}}, "at '/profiles': additional properties 'L4' not allowed"),
        ({"profiles": {"l4": {"nodeselector": {}}}}, "additional properties 'nodeselector' not allowed"),
        ({"profiles": {"l4": {"resources": {"limits": {"memory": "8 GB"}}}}}, "'8 GB' does not match pattern"),
        ({"profiles": {"l4": {"resources": {"limits": {"cpu": 2}}}}}, "got number, want string"),
        ({"download": {"backoffLimit": 101}}, "at '/download/backoffLimit'"),
        ({"engineFlavour": "rocm"}, "at '/engineFlavour'"),
        ({"log": {"level": "LOUD"}}, "at '/log/level'"),
        ({"imagePullSecrets": ["registry"]}, "at '/imagePullSecrets/0': got string, want object"),
        ({"watch": {"namespaces": "team-a"}}, "at '/watch/namespaces': got string, want array"),
    ],
    ids=str,
)
def test_wrong_values_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CommandError) as refused:
        template(DEFAULT, values=values)
    assert sentence in refused.value.stderr


def test_argo_cd_applications_fit_the_charts() -> None:
    for part in ("operator", "gateway"):
        application = yaml.safe_load((charts.CHARTS / f"argocd/{part}.yaml").read_text())
        source = application["spec"]["source"]
        assert source["path"] == f"charts/{source['helm']['releaseName']}"
        rendered = template(Case(source["helm"]["releaseName"], "default"), values=source["helm"]["valuesObject"])
        for container in charts.containers(rendered):
            assert container["image"].startswith("registry.example.com/team/aiservice/")
