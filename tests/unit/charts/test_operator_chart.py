"""The operator's chart: its configuration, CustomResourceDefinitions and what it refuses."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiservice_kubectl.planning.configuration import SELECTOR
from aiservice_operator import settings
from support import charts
from support.charts import Case, Manifest, kinds, only, template
from support.cluster import REPOSITORY, CommandError, run, tool

DEFAULT = Case("aiservice-operator", "default")
GATEWAY = Case("aiservice-gateway", "bundled")
CRDS = REPOSITORY / "crds"


def configuration(tmp_path: Path, case: Case = DEFAULT, **values: Any) -> settings.Settings:
    """The rendered configuration as the operator itself reads it."""
    file = tmp_path / "config.yaml"
    config_map = next(
        one
        for one in kinds(template(case, values=values), "ConfigMap")
        if not one["metadata"]["name"].endswith("-release")
    )
    file.write_text(config_map["data"]["config.yaml"])
    return settings.load(file)


def test_the_operator_reads_the_default_configuration(tmp_path: Path) -> None:
    read = configuration(tmp_path)
    assert read.watch.namespaces == []
    assert read.images == {
        "diffusion": "localhost/aiservice/diffusion:0.1.0",
        "speech-recognition": "localhost/aiservice/speech-recognition:0.1.0",
        "speech-synthesis": "localhost/aiservice/speech-synthesis:0.1.0",
        "vision": "localhost/aiservice/vision:0.1.0",
    }
    assert read.download == settings.Download()
    assert read.roll_on_config_change is True
    assert read.watch.labels == {}
    assert read.monitoring == settings.Monitoring()
    assert read.network.enabled
    assert [places(peer) for peer in read.network.allow_from] == [
        ("aiservice-operator", charts.NAMESPACE),
        ("gateway", charts.NAMESPACE),
        ("prometheus", "monitoring"),
    ]
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
        "speech-synthesis": "registry.example.com/team/aiservice/speech-synthesis:0.1.0",
        "vision": "mirror.example.com/aiservice/vision:9.9.9",
        "diffusion": "registry.example.com/team/acme/diffusion:2",
    }
    assert read.image_pull_policy == "Always"
    assert read.image_pull_secrets == ["registry"]
    assert "nvidia-t4" not in read.profiles
    assert read.profiles["nvidia-l4"].node_selector == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert read.profiles["nvidia-h100"].runtime_class_name == "nvidia"
    assert read.profiles["nvidia-h100"].priority_class_name == "gpu"
    assert read.profiles["nvidia-h100"].price == settings.Price(hourly=Decimal("4.1"), currency="EUR")
    assert read.download.backoff_limit == 2
    assert read.download.verify_interval_hours == 12
    assert read.download.allowed_hosts == ["minio.storage.svc", "*.corp.example", "10.1.0.0/16"]
    assert read.download.denied_networks == ["2001:db8:42::/48", "203.0.113.0/24"]
    assert read.download.env == {
        "HTTPS_PROXY": "http://proxy.example.com:3128",
        "NO_PROXY": ".svc",
        "HF_HUB_DISABLE_XET": "1",
    }
    assert read.watch.labels == {"example.com/tier": "production"}
    assert read.roll_on_config_change is False
    operator = read.network.allow_from[0]
    assert operator.pod_labels == {"app.kubernetes.io/name": "operator", "app.kubernetes.io/instance": DEFAULT.chart}
    assert [places(peer) for peer in read.network.allow_from] == [
        ("operator", charts.NAMESPACE),
        ("gateway", "gateways"),
        ("prometheus", "observability"),
        ("client", "shop"),
    ]
    assert read.monitoring == settings.Monitoring(labels={"release": "prometheus"}, interval="15s")
    assert read.leader_election.name == "aiservice-operator"
    assert read.log.level == "DEBUG"


def test_what_the_namespaces_example_turns_off(tmp_path: Path) -> None:
    read = configuration(tmp_path, Case("aiservice-operator", "namespaces"))
    assert read.watch.namespaces == ["team-a", "team-b"]
    assert not read.network.enabled
    assert not read.monitoring.enabled


def test_no_profile_has_a_price_that_nobody_has_written(tmp_path: Path) -> None:
    assert not [name for name, profile in configuration(tmp_path).profiles.items() if profile.price is not None]


def test_the_profiles_for_shared_gpus_are_read(tmp_path: Path) -> None:
    values = yaml.safe_load((charts.CHARTS / "aiservice-operator/examples/gpu-sharing-values.yaml").read_text())
    profiles = configuration(tmp_path, **values).profiles
    assert profiles["nvidia-mig-1g-10gb"].gpu == settings.Gpu(resource="nvidia.com/mig-1g.10gb")
    assert profiles["nvidia-l4-shared"].gpu == settings.Gpu(resource="nvidia.com/gpu.shared", memory_gi_b=Decimal(6))
    assert profiles["nvidia-dra"].gpu is None
    assert set(values["profiles"]) < set(profiles)


def test_the_rule_for_prometheus_adapter_serves_the_metric_that_the_autoscalers_ask_for() -> None:
    values = yaml.safe_load((charts.CHARTS / "aiservice-operator/files/prometheus-adapter-rules.yaml").read_text())
    [rule] = values["rules"]["custom"]
    metric = "aiservice_requests_in_flight"
    assert rule["name"] == {"as": metric}
    assert rule["seriesQuery"] == f'{metric}{{namespace!="",pod!=""}}'
    assert rule["resources"] == {"overrides": {kind: {"resource": kind} for kind in ("namespace", "pod")}}
    # The adapter fills Go templates into PromQL.
    query = rule["metricsQuery"]
    for field, value in {"Series": metric, "LabelMatchers": 'pod="a"', "GroupBy": "pod"}.items():
        assert f"<<.{field}>>" in query
        query = query.replace(f"<<.{field}>>", value)
    assert query == f'sum({metric}{{pod="a"}}) by (pod)'
    runtime = REPOSITORY / "inference-images/runtime/src/aiservice_runtime/metrics.py"
    assert f'"{metric}"' in runtime.read_text()


def test_every_profile_of_the_examples_is_in_the_chart(tmp_path: Path) -> None:
    documents = [
        document
        for path in (REPOSITORY / "examples").rglob("*.yaml")
        for document in yaml.safe_load_all(path.read_text())
        if document["kind"] == "AIService"
    ]
    named = {document["spec"]["profile"] for document in documents if "profile" in document["spec"]}
    assert named
    assert named <= set(configuration(tmp_path).profiles)


def places(peer: settings.Peer) -> tuple[str, str]:
    labels = peer.pod_labels
    name = labels.get("app.kubernetes.io/name") or labels["app.kubernetes.io/component"]
    return name, peer.namespace_labels["kubernetes.io/metadata.name"]


@pytest.mark.parametrize("values", [{}, {"nameOverride": "door"}, {"fullnameOverride": "door"}], ids=str)
def test_the_gateways_pods_may_reach_every_service_and_its_stores_may_not(
    tmp_path: Path, values: dict[str, str]
) -> None:
    peers = configuration(tmp_path).network.allow_from
    allowed = [
        name
        for name, pod in charts.pods(template(GATEWAY, values=values))
        if any(peer.pod_labels.items() <= pod["metadata"]["labels"].items() for peer in peers)
    ]
    assert [name.split("/")[0] for name in allowed] == ["Deployment"]


@pytest.mark.parametrize("case", [DEFAULT, Case("aiservice-operator", "full")], ids=str)
def test_the_configuration_is_found_by_a_label_that_no_value_changes(case: Case) -> None:
    wanted = dict(label.split("=") for label in SELECTOR.split(","))
    found = [one for one in template(case) if wanted.items() <= one["metadata"]["labels"].items()]
    assert [(one["kind"], list(one["data"])) for one in found] == [("ConfigMap", ["config.yaml"])]


def test_the_cuda_flavour_is_for_engines_without_a_tag(tmp_path: Path) -> None:
    read = configuration(tmp_path, engineFlavour="cuda", engines={"vision": {"tag": "7"}})
    assert read.images == {
        "diffusion": "localhost/aiservice/diffusion:0.1.0-cuda",
        "speech-recognition": "localhost/aiservice/speech-recognition:0.1.0-cuda",
        "speech-synthesis": "localhost/aiservice/speech-synthesis:0.1.0-cuda",
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


def release_only(manifests: list[Manifest]) -> list[Manifest]:
    """What Helm makes only when the release is uninstalled."""
    return [one for one in manifests if "helm.sh/hook" in one["metadata"].get("annotations", {})]


def installed(**values: Any) -> list[Manifest]:
    """What is there while the release is."""
    manifests = template(DEFAULT, values=values)
    return [one for one in manifests if one not in release_only(manifests)]


def test_roles_follow_the_namespaces() -> None:
    everywhere = installed()
    bindings = kinds(everywhere, "ClusterRoleBinding")
    assert {one["metadata"]["name"] for one in bindings} == {"aiservice-operator", "aiservice-operator-nodes"}
    assert {one["subjects"][0]["name"] for one in bindings} == {"aiservice-operator"}
    some = installed(watch={"namespaces": ["team-a", "team-b"]})
    assert [one["metadata"]["name"] for one in kinds(some, "ClusterRoleBinding")] == ["aiservice-operator-nodes"]
    roles = [one for one in kinds(some, "Role") if one["metadata"]["name"] == "aiservice-operator"]
    assert [one["metadata"]["namespace"] for one in roles] == ["team-a", "team-b"]
    assert [one["rules"] for one in roles] == [only(everywhere, "ClusterRole", "aiservice-operator")["rules"]] * 2


def test_nodes_are_read_only_where_that_is_wanted() -> None:
    rules = only(installed(), "ClusterRole", "aiservice-operator-nodes")["rules"]
    assert {(one["resources"][0], *one["verbs"]) for one in rules} == {("nodes", "get", "list"), ("pods", "list")}
    without = installed(rbac={"readNodes": False}, watch={"namespaces": ["team-a"]})
    assert {one["metadata"]["name"] for one in kinds(without, "ClusterRole")} == {
        "aiservice-operator-edit",
        "aiservice-operator-view",
    }


def test_secrets_are_read_by_name_or_not_at_all() -> None:
    def verbs(**values: Any) -> set[str]:
        return {
            verb
            for role in kinds(template(DEFAULT, values=values), "ClusterRole", "Role")
            for rule in role["rules"]
            if {"secrets", "configmaps"} & set(rule["resources"])
            for verb in rule["verbs"]
        }

    assert verbs() == {"get"}
    assert verbs(rollOnConfigChange=False) == set()


def test_no_role_has_wildcards() -> None:
    for role in kinds(template(DEFAULT), "ClusterRole", "Role"):
        for rule in role["rules"]:
            assert "*" not in rule["resources"] + rule["verbs"] + rule["apiGroups"]


def test_two_releases_with_other_labels_share_a_cluster() -> None:
    def identities(release: str) -> set[tuple[str, str, str]]:
        values = {"crds": {"install": False}, "watch": {"labels": {"tier": release}}}
        text = run(
            tool("helm"), "template", release, DEFAULT.path, "-n", "ops", "--values", "-", stdin=json.dumps(values)
        )
        manifests = [one for one in yaml.safe_load_all(text) if one]
        [config] = {one["data"]["config.yaml"] for one in kinds(manifests, "ConfigMap")}
        lease = yaml.safe_load(config)["leaderElection"]["name"]
        return {("", "Lease", lease)} | {
            (one["metadata"].get("namespace", ""), one["kind"], one["metadata"]["name"]) for one in manifests
        }

    assert not identities("blue") & identities("green")


def test_the_last_job_is_a_hook_with_few_rights_that_takes_everything_along() -> None:
    manifests = template(DEFAULT)
    last = release_only(manifests)
    assert {one["kind"] for one in last} == {
        "ConfigMap",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "Job",
    }
    for one in last:
        annotations = one["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "post-delete"
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
        # The Job comes after what it needs.
        assert ("helm.sh/hook-weight" in annotations) == (one["kind"] != "Job")
    granted = {
        (resource, verb)
        for role in kinds(last, "ClusterRole", "Role")
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == {
        ("modelcaches", "list"),
        ("modelcaches", "patch"),
        ("leases", "create"),
        ("leases", "get"),
        ("leases", "update"),
    }
    [job] = kinds(last, "Job")
    assert job["spec"]["template"]["spec"]["containers"][0]["args"][:2] == ["release", "--config"]
    service = only(manifests, "Service")
    assert not service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_the_last_job_with_a_service_account_and_roles_of_your_own_or_not_at_all() -> None:
    values = {"serviceAccount": {"create": False, "name": "robot"}, "rbac": {"create": False}}
    last = release_only(template(DEFAULT, values=values))
    assert {one["kind"] for one in last} == {"ConfigMap", "Job"}
    assert only(last, "Job")["spec"]["template"]["spec"]["serviceAccountName"] == "robot"
    assert release_only(template(DEFAULT, values={"uninstall": {"releaseCaches": False}})) == []


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
        ({"download": {"allowedHosts": "minio"}}, "at '/download/allowedHosts': got string, want array"),
        (
            {"download": {"deniedNetworks": ["pods.corp"]}},
            "at '/download/deniedNetworks/0': 'pods.corp' does not match",
        ),
        ({"download": {"deniedNetworks": ["10.0.0.1"]}}, "at '/download/deniedNetworks/0': '10.0.0.1' does not match"),
        (
            {"download": {"env": {"AISERVICE_CACHE_DIR": "/"}}},
            "additional properties 'AISERVICE_CACHE_DIR' not allowed",
        ),
        ({"download": {"env": {"HTTPS_PROXY": "http://a:b@proxy"}}}, "at '/download/env/HTTPS_PROXY'"),
        ({"download": {"env": {"HF_HUB_DISABLE_XET": 1}}}, "at '/download/env/HF_HUB_DISABLE_XET': got number"),
        ({"network": {"allowFrom": [{"podLabels": {}}]}}, "at '/network/allowFrom/0/podLabels': minProperties"),
        ({"network": {"allowFrom": [{"namespaceLabels": {"a": "b"}}]}}, "missing property 'podLabels'"),
        ({"monitoring": {"interval": "often"}}, "'often' does not match pattern"),
        ({"profiles": {"l4": {"price": {"currency": "EUR"}}}}, "missing property 'hourly'"),
        ({"watch": {"labels": {"tier": 1}}}, "at '/watch/labels/tier': got number, want string"),
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
