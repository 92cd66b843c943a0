"""plan: against a real API server, the operator's ConfigMap and nodes with GPUs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from support.cluster import ControlPlane, eventually
from support.manifests import ABSENT, Change, ai_service, changed, model_cache
from support.operator import CONFIG
from support.operator_world import World
from support.plugin import CONFIGURATION_LABELS, Answer, Plugin

SHARED = ("spec.model.storage", {"accessMode": "ReadWriteMany"})


def planned(world: World, ais: Plugin, *bodies: object, more: tuple[str, ...] = ()) -> Answer:
    text = yaml.safe_dump_all(bodies)
    where = ("-n", world.namespace, "--operator-namespace", world.namespace)
    return ais("plan", "-f", "-", *where, *more, stdin=text)


def test_what_would_be_made_and_that_nothing_is(world: World, ais: Plugin) -> None:
    answer = planned(world, ais, ai_service(name="planned"))
    assert answer.code == 0, answer.out + answer.err
    assert "AIService planned" in answer.out
    assert "would be created" in answer.out
    for expected in (
        "Deployment planned",
        "Service planned",
        "port 7862 speech-to-text",
        "fits: needs 5 GiB in fp16, nvidia.com/gpu has 24 GiB",
        "fits: needs 1 x nvidia.com/gpu; free now 4 x nvidia.com/gpu on 2 matching nodes",
        "about 511 USD a month: 1 x 0.70 USD an hour (profile nvidia-l4) x 730 h",
        f"profiles and images are those of ConfigMap {world.namespace}/operator",
    ):
        assert expected in answer.words
    assert world.api.find("AIService", "planned") is None


def test_several_documents_are_summed(world: World, ais: Plugin) -> None:
    three = ai_service(("spec.replicas", 3), SHARED, name="three")
    one = ai_service(("spec.profile", "cpu"), name="one")
    answer = planned(world, ais, three, one, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}})
    assert answer.code == 0, answer.out
    total = answer.words[answer.words.index("In all") :]
    assert "accepted 2 objects capacity all fit now, together cost about 1,569.50 USD a month" in total
    assert "left out, being of other kinds: Secret s" in total

    two = ai_service(("spec.replicas", 2), SHARED, name="two")
    answer = planned(world, ais, three, two, more=("-o", "json"))
    assert answer.code == 3
    assert [item["fit"]["fits"] for item in answer.json["documents"]] == [True, False]
    assert (answer.json["accepted"], answer.json["fits"]) == (True, False)
    assert float(answer.json["monthlyCost"][0]["most"]) == pytest.approx(2555)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("spec.profle", "cpu"), 'unknown field "spec.profle"'),
        (("spec.replicas", -1), "spec.replicas in body should be greater than or equal to 0"),
        (("spec.model", ABSENT), "set exactly one of model"),
        (("spec.profile", "nope"), "UnknownProfile: the operator has no resource profile 'nope'"),
        (("spec.profile", "small-gpu"), "DoesNotFit: openai/whisper-large-v3 needs 5 GiB of GPU memory in fp16"),
        (("spec.tasks", ["text-to-speech"]), "NoEngine: the operator has no image for text-to-speech"),
    ],
)
def test_what_would_not_be_accepted(world: World, ais: Plugin, change: Change, words: str) -> None:
    answer = planned(world, ais, ai_service(change), ai_service(name="good"))
    assert answer.code == 1
    assert "AIService whisper" in answer.out
    assert "would not be accepted" in answer.out
    assert words in answer.words
    assert "accepted 1 of 2 objects" in answer.words


def test_an_update_counts_its_own_pods_as_free(world: World, ais: Plugin) -> None:
    spec = {"profile": "nvidia-l4", "replicas": 3}
    body = world.serve("grows", **spec)
    shared = changed(body, ("spec.model.storage", {"accessMode": "ReadWriteMany"}))
    world.api.delete("AIService", "grows")
    world.until_gone("AIService", "grows")
    world.serve("grows", **spec, model=shared["spec"]["model"])
    world.until_serving("grows")
    manifest = {**ai_service(name="grows"), "spec": {**shared["spec"], "replicas": 4}}
    answer = planned(world, ais, manifest)
    assert answer.code == 0, answer.out
    assert "would be updated" in answer.out
    assert "; cached" in answer.out
    assert "free now 4 x nvidia.com/gpu on 2 matching nodes" in answer.words
    other = planned(world, ais, ai_service(("spec.replicas", 2), SHARED, name="other"))
    assert other.code == 3
    assert "1 of 2 pods find a place" in other.words
    assert "free now 1 x nvidia.com/gpu" in other.words
    beside = model_cache(name="grows")
    assert planned(world, ais, beside, ai_service(("spec.replicas", 2), SHARED, name="other")).code == 3, (
        "a cache of the same name has no pods to replace"
    )
    world.api.delete("AIService", "grows")
    world.until_gone("AIService", "grows")


def test_without_a_cluster(ais: Plugin, tmp_path: Path) -> None:
    config, manifest = tmp_path / "config.yaml", tmp_path / "m.yaml"
    config.write_text(json.dumps(CONFIG))
    manifest.write_text(yaml.safe_dump(ai_service(("spec.profile", "gpu"))))
    offline = ais("plan", "-f", str(manifest), "--offline", "--config", str(config))
    assert offline.code == 0, offline.err
    assert "no cluster was asked" in offline.words
    assert "not looked at: no nodes are known" in offline.words
    nowhere = ais("plan", "-f", str(manifest), "--config", str(config), KUBECONFIG=str(tmp_path / "missing"))
    assert nowhere.code == 0, nowhere.err
    assert "the cluster could not be asked" in nowhere.words
    assert ais("plan", "-f", str(manifest), "--offline").code == 2
    lost = ais("plan", "-f", str(manifest), KUBECONFIG=str(tmp_path / "missing"))
    assert lost.code == 4
    assert "--offline --config FILE" in lost.err


def test_which_operator_is_meant(control_plane: ControlPlane, namespace: str, world: World, ais: Plugin) -> None:
    """Releases in one namespace, which serve the same namespace."""
    found = ("-n", world.namespace, "--operator-namespace", namespace)

    def configure(name: str, **watch: object) -> None:
        metadata = {"name": name, "labels": CONFIGURATION_LABELS, "namespace": namespace}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        control_plane.apply({**body, "data": {"config.yaml": json.dumps({**CONFIG, "watch": watch})}})

    def asked(*bodies: object) -> Answer:
        return ais("plan", "-f", "-", *found, stdin=yaml.safe_dump_all(bodies))

    small = ("spec.profile", "gpu")
    answer = asked(ai_service(small))
    assert answer.code == 2
    assert f"namespace {namespace} has no configuration of the operator" in answer.err
    for name in ("one", "two"):
        configure(name)
    answer = asked(ai_service(small))
    assert answer.code == 2
    assert f"several operators serve AIService whisper in namespace {world.namespace}" in answer.err
    for name in ("one", "two"):
        configure(name, labels={"tier": name})
    both = [ai_service(small, ("metadata.labels", {"tier": tier}), name=tier) for tier in ("one", "two")]
    answer = asked(*both)
    assert answer.code in {0, 3}, answer.out + answer.err
    assert f"those of ConfigMap {namespace}/one and ConfigMap {namespace}/two" in answer.words
    configure("two", namespaces=["elsewhere"])
    answer = asked(*both)
    assert answer.code == 1
    assert "accepted 1 of 2 objects" in answer.words
    assert "no operator would look at it" in answer.words
    assert (
        f"that of ConfigMap {namespace}/two does not serve namespace {world.namespace}, only elsewhere" in answer.words
    )


def test_a_dry_run_that_is_no_verdict(control_plane: ControlPlane, world: World, ais: Plugin, tmp_path: Path) -> None:
    """Who may not make the dry run has not learnt that the manifest is bad."""
    config, manifest = tmp_path / "config.yaml", tmp_path / "m.yaml"
    config.write_text(json.dumps(CONFIG))
    manifest.write_text(yaml.safe_dump(ai_service(("spec.profile", "gpu"))))
    kubeconfig = tmp_path / "nobody"
    nobody = json.loads(control_plane.kubeconfig.read_text())
    token = control_plane.kubectl("create", "token", "default", "-n", world.namespace).strip()
    nobody["users"][0]["user"] = {"token": token}
    kubeconfig.write_text(json.dumps(nobody))
    answer = ais(
        *("plan", "-f", str(manifest), "-n", world.namespace, "--config", str(config)), KUBECONFIG=str(kubeconfig)
    )
    assert (answer.code, answer.out) == (4, "")
    assert "whether AIService whisper would be accepted cannot be told" in answer.err
    assert "takes the right to create" in answer.err


def test_what_admission_refuses_is_a_verdict(control_plane: ControlPlane, world: World, ais: Plugin) -> None:
    rule = {"apiGroups": ["aiservice.dev"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["aiservices"]}
    check = {"expression": "object.metadata.name != 'unwanted'", "message": "not here", "reason": "Forbidden"}
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}}}
    admission = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": world.namespace}}
    kind = "ValidatingAdmissionPolicy"
    control_plane.apply(
        {**admission, "kind": kind, "spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": [check]}},
        {
            **admission,
            "kind": f"{kind}Binding",
            "spec": {"policyName": world.namespace, "validationActions": ["Deny"], "matchResources": here},
        },
    )

    def refused() -> Answer:
        """The answer, once the API server knows the policy."""
        answer = planned(world, ais, ai_service(name="unwanted"))
        assert answer.code == 1, answer.err
        return answer

    try:
        answer = eventually(refused)
    finally:
        control_plane.kubectl("delete", f"{kind.lower()},{kind.lower()}binding", world.namespace)
    assert "denied request: not here" in answer.words
