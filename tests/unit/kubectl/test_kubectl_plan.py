"""What is found out about a manifest, against clusters made up here."""

from __future__ import annotations

from typing import Any

import pytest

from aiservice_api.v1alpha1 import ModelCache
from aiservice_kubectl.errors import RefusedError, UsageError
from aiservice_kubectl.planning.capacity import Room, rooms
from aiservice_kubectl.planning.children import Child
from aiservice_kubectl.planning.configuration import Configuration, serving, unserved
from aiservice_kubectl.planning.examine import examine_cache, examine_service
from aiservice_kubectl.planning.manifests import Document
from aiservice_kubectl.planning.render import render
from aiservice_kubectl.planning.report import Report, Summary
from aiservice_kubectl.planning.survey import Survey
from aiservice_kubectl.planning.validity import is_verdict
from aiservice_kubectl.text import Paint
from aiservice_operator import names
from aiservice_operator.capacity import read_nodes
from aiservice_operator.kinds import Apis, Json
from aiservice_operator.settings import Settings
from support.manifests import ABSENT, Change, ai_service, model_cache
from support.operator_objects import cache, condition, service

GPU = "nvidia.com/gpu"
SETTINGS = Settings.model_validate(
    {
        "images": {"speech-recognition": "example.test/speech:1", "vision": "example.test/vision:1"},
        "network": {"allowFrom": [{"podLabels": {"app": name}} for name in ("gateway", "operator", "prometheus")]},
        "profiles": {
            "cpu": {"resources": {"requests": {"cpu": "2", "memory": "4Gi"}}, "price": {"hourly": "0.10"}},
            "nvidia-l4": {
                "gpu": {"memoryGiB": 24},
                "resources": {"requests": {"cpu": "2", "memory": "8Gi"}},
                "nodeSelector": {"gpu": "l4"},
                "price": {"hourly": "0.70"},
            },
            "tiny": {"gpu": {"memoryGiB": 3}},
        },
    }
)


def gpu_node(name: str = "a", gpus: int = 2) -> Room:
    body = {
        "metadata": {"name": name, "labels": {"gpu": "l4"}},
        "status": {
            "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110", GPU: str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    return rooms(read_nodes([body], []))[0]


def document(body: Json) -> Document:
    return Document("m.yaml", body, "team")


def examined(*changes: Change, cluster: Survey | None = None, caches: Any = None) -> Report:
    around = cluster or Survey(True, rooms=(gpu_node(),))
    return examine_service(document(ai_service(*changes)), SETTINGS, around, caches or {})


def tree(children: tuple[Child, ...]) -> list[str]:
    return [f"{child.kind} {child.facts}" for child in children]


def fit(report: Report) -> tuple[bool | None, str]:
    assert report.fit is not None
    return report.fit.fits, report.fit.words


def test_the_children_of_a_service() -> None:
    report = examined(("spec.autoscaling", {"min": 1, "max": 3}))
    assert tree(report.children) == [
        "ModelCache huggingFace openai/whisper-large-v3@main; new",
        "ServiceAccount no rights, no token",
        "Service port 7862 speech-to-text",
        "Deployment 1 to 3 pods; an old pod stops before a new one starts",
        "HorizontalPodAutoscaler 1 to 3 pods, by 4 requests in flight a pod (custom metrics API)",
        "PodDisruptionBudget drains of nodes may stop all of its pods at once",
        "NetworkPolicy 3 kinds of pods may connect, others may not",
        "PodMonitor where the Prometheus Operator is installed",
    ]
    assert [child.kind for child in report.children[0].children] == ["PersistentVolumeClaim", "Job"]
    assert report.facts["engine"] == "example.test/speech:1, fp16"
    assert report.facts["each pod"] == "1 x nvidia.com/gpu, 2 CPU, 8 GiB memory"
    assert report.facts["nodes"] == "gpu=l4"
    assert report.exists is False


@pytest.mark.parametrize(
    ("change", "kind", "facts"),
    [
        (("spec.replicas", 1), "Deployment", "1 pod; an old pod stops before a new one starts"),
        (("spec.rollout", {"surge": "Always"}), "Deployment", "1 pod; a new pod starts before an old one stops"),
        (("spec.profile", "cpu"), "Deployment", "1 pod; a new pod starts before an old one stops"),
        (("spec.disruption", {"minAvailable": "50%"}), "PodDisruptionBudget", "drains of nodes leave 50% of its pods"),
        (
            ("spec.autoscaling", {"max": 2, "metric": "CPU", "targetCpuUtilization": 70}),
            "HorizontalPodAutoscaler",
            "1 to 2 pods, by 70% CPU use (metrics-server)",
        ),
    ],
)
def test_what_matters_about_a_child(change: Change, kind: str, facts: str) -> None:
    assert f"{kind} {facts}" in tree(examined(change).children)


def test_what_is_not_made() -> None:
    around = Survey(True, rooms=(gpu_node(),), apis=Apis())
    report = examined(("spec.suspend", True), ("spec.network", {"restrict": False}), cluster=around)
    kinds = [child.kind for child in report.children]
    assert kinds == ["ModelCache", "ServiceAccount", "Service", "Deployment"]
    assert fit(report) == (True, "no pod runs")
    assert str(report.cost) == "0 USD"


def test_the_claim_of_a_cache_that_is_there_is_not_mounted_writable() -> None:
    around = Survey(True, caches=(cache("lora"), cache("provided", {"pvc": {"claimName": "disk"}})))

    def refused(claim: str) -> bool:
        volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
        return any(
            "MountConflict" in text for text in examined(("spec.pod", {"volumes": volumes}), cluster=around).refused
        )

    assert [refused(claim) for claim in ("lora", "provided", "disk")] == [True, False, False]


NO_PROFILE = ("spec.profile", ABSENT)  # whose GPU a claimed one would come beside


def test_devices_are_refused_where_the_cluster_does_not_serve_their_api() -> None:
    claims = ("spec.resourceClaims", [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}])
    refused = examined(NO_PROFILE, claims, cluster=Survey(True, rooms=(), apis=Apis())).refused
    assert len(refused) == 1
    assert refused[0].startswith("NoDynamicResources: this cluster does not serve resource.k8s.io")
    assert not examined(NO_PROFILE, claims, cluster=Survey(True, rooms=(), apis=Apis(dynamic_resources=True))).refused


def test_a_cache_that_is_there_is_not_downloaded_again() -> None:
    body = ai_service()
    name = names.cache_name(
        ModelCache.model_validate({**body, "kind": "ModelCache", "spec": body["spec"]["model"]}).spec
    )
    done = cache(name, body["spec"]["model"], status={"conditions": [condition("Ready", "True", "Cached")]})
    around = Survey(True, services=(service("whisper"),), caches=(done,), rooms=())
    report = examined(cluster=around)
    assert report.exists is True
    assert report.children[0].facts.endswith("; cached")
    assert [child.kind for child in report.children[0].children] == ["PersistentVolumeClaim"]


def test_a_cache_by_reference_is_found_in_the_manifest_or_the_cluster() -> None:
    change = (("spec.model", ABSENT), ("spec.modelCacheRef", {"name": "mine"}))
    spec = ModelCache.model_validate(model_cache(name="mine")).spec
    assert "need of this model is not known" in str(examined(*change).memory)
    assert examined(*change).children[0].facts.startswith("not there")
    known = examined(*change, caches={("team", "mine"): spec})
    assert "needs 5 GiB in fp16" in str(known.memory)
    assert known.children[0].facts == "yours, used by reference"


def test_a_model_that_is_too_large_for_the_gpu() -> None:
    report = examined(("spec.profile", "tiny"))
    assert report.refused[0].startswith("DoesNotFit: openai/whisper-large-v3 needs 5 GiB of GPU memory in fp16")
    assert "nvidia-l4 (24 GiB)" in report.refused[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ((), "fits: needs 5 GiB in fp16, nvidia.com/gpu has 24 GiB"),
        ((("spec.gpuMemory", "10Gi"),), "fits: needs 10 GiB in fp16, nvidia.com/gpu has 24 GiB"),
        ((("spec.gpu", {"count": 1}),), "not compared: needs 5 GiB in fp16, that of nvidia.com/gpu is not known"),
    ],
)
def test_the_memory_of_the_gpu(changes: tuple[Change, ...], words: str) -> None:
    memory = examined(*changes).memory
    assert memory is not None
    assert memory.words == words


def test_whether_it_fits_now() -> None:
    assert fit(examined()) == (True, "fits: needs 1 x nvidia.com/gpu; free now 2 x nvidia.com/gpu on 1 matching node")
    does, words = fit(examined(("spec.replicas", 3)))
    assert does is False
    assert words == (
        "does not fit: 2 of 3 pods find a place, all on one node, since the volume of the cache is ReadWriteOnce "
        "(storage.accessMode): needs 3 x nvidia.com/gpu; free now 2 x nvidia.com/gpu on 1 matching node; short of "
        "nvidia.com/gpu"
    )
    assert "no node that is Ready" in fit(examined(cluster=Survey(True, rooms=())))[1]
    assert fit(examined(cluster=Survey(False)))[0] is None
    claims = ("spec.resourceClaims", [{"name": "gpu", "resourceClaimName": "mine"}])
    assert fit(examined(NO_PROFILE, claims))[0] is None


def test_a_shared_volume_lets_pods_spread() -> None:
    around = Survey(True, rooms=(gpu_node("a", 1), gpu_node("b", 2)))
    assert fit(examined(("spec.replicas", 3), cluster=around))[0] is False
    around = Survey(True, rooms=(gpu_node("a", 1), gpu_node("b", 2)))
    shared = ("spec.model.storage", {"accessMode": "ReadWriteMany"})
    assert fit(examined(("spec.replicas", 3), shared, cluster=around))[0] is True


def test_documents_share_what_is_free() -> None:
    around = Survey(True, rooms=(gpu_node("a", 1),))
    assert fit(examined(cluster=around))[0] is True
    assert fit(examined(cluster=around))[0] is False


def test_services_that_share_a_volume_for_one_node_share_the_node() -> None:
    around = Survey(True, rooms=(gpu_node("a", 1), gpu_node("b", 1)))
    assert fit(examined(cluster=around))[0] is True
    does, words = fit(examined(cluster=around))
    assert does is False
    assert words == (
        "does not fit: 0 of 1 pods find a place, on a beside others that use the cache, since the volume of the cache "
        "is ReadWriteOnce (storage.accessMode): needs 1 x nvidia.com/gpu; free now 1 x nvidia.com/gpu on 2 matching "
        "nodes; short of nvidia.com/gpu"
    )


def test_what_autoscaling_may_ask_for() -> None:
    words = fit(examined(("spec.autoscaling", {"max": 5})))[1]
    assert words.endswith("; 2 of the 5 that autoscaling may ask for would fit now")


def test_costs() -> None:
    scaled = examined(("spec.autoscaling", {"min": 2, "max": 4}))
    assert scaled.cost_words == (
        "about 1,022 to 2,044 USD a month: 2 to 4 x 0.70 USD an hour (profile nvidia-l4) x 730 h"
    )
    assert "the true price may differ" in examined(("spec.gpu", {"count": 2})).cost_words
    assert examined(("spec.profile", "tiny"), ("spec.gpuMemory", "1Gi")).cost_words == (
        "not known: give the operator one (chart value profiles.tiny.price)"
    )
    own = examined(("spec.profile", ABSENT), ("spec.resources", {"requests": {"cpu": "1"}}))
    assert own.cost_words == "not known: it has no profile, and prices are those of profiles"


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (("spec.storage", {"size": "30Gi", "storageClassName": "fast"}), "30Gi, ReadWriteOnce, StorageClass fast"),
        (("spec.storage", {"accessMode": "ReadWriteMany"}), "as large as the model and a margin, ReadWriteMany"),
    ],
)
def test_a_cache_of_its_own(change: Change, facts: str) -> None:
    report = examine_cache(document(model_cache(change)), SETTINGS, Survey(True, rooms=()))
    claim, download = report.children[0].children
    assert claim.facts == facts
    assert download.facts.startswith("downloads once, with ")


def configured(source: str, **watch: object) -> Configuration:
    return Configuration(Settings.model_validate({"watch": watch}), source)


def test_what_the_operator_does_not_look_at() -> None:
    narrow = (configured("a", namespaces=["speech"], labels={"tier": "gold"}),)
    good = Document("m.yaml", ai_service(("metadata.labels", {"tier": "gold"})), "speech")
    assert serving(good, narrow) is narrow[0]
    for passed_over, words in (
        (document(good.body), "does not serve namespace team, only speech"),
        (Document("m.yaml", ai_service(), "speech"), "add that to metadata.labels"),
    ):
        assert serving(passed_over, narrow) is None
        assert words in unserved(passed_over, narrow)
    assert serving(document(ai_service()), (configured("a"),)) is not None


def test_each_document_gets_the_operator_that_serves_it() -> None:
    gold, silver = (configured(tier, labels={"tier": tier}) for tier in ("gold", "silver"))
    elsewhere = configured("elsewhere", namespaces=["speech"])
    found = (gold, silver, elsewhere)
    assert serving(document(ai_service(("metadata.labels", {"tier": "silver"}))), found) is silver
    assert serving(document(ai_service(("metadata.labels", {"tier": "gold"}))), found) is gold
    assert serving(Document("m.yaml", ai_service(), "speech"), found) is elsewhere
    nobodys = document(ai_service())
    assert serving(nobodys, found) is None
    assert unserved(nobodys, found) == (
        "no operator would look at it: that of gold serves only what is labelled tier=gold: add that to "
        "metadata.labels; that of silver serves only what is labelled tier=silver: add that to "
        "metadata.labels; that of elsewhere does not serve namespace team, only speech (chart value "
        "watch.namespaces)"
    )
    with pytest.raises(UsageError, match=r"several operators serve AIService whisper in namespace team \(one, two\)"):
        serving(nobodys, (configured("one"), configured("two")))


@pytest.mark.parametrize(
    ("reason", "words", "verdict"),
    [
        ("Invalid", "spec.replicas: Invalid value", True),
        ("BadRequest", 'unknown field "spec.profle"', True),
        ("NotFound", 'namespaces "team" not found', True),
        ("Forbidden", 'admission webhook "a.b" denied the request: no', True),
        (
            "Forbidden",
            'admission webhook "a.b" denied the request: x is forbidden: User "j" cannot do resource x',
            True,
        ),
        ("", 'admission webhook "a.b" denied the request: no', True),
        ("Forbidden", 'aiservices.aiservice.dev "a" is forbidden: exceeded quota: few, requested: 1', True),
        ("Unauthorized", "x is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", True),
        (
            "Forbidden",
            (
                'aiservices.aiservice.dev is forbidden: User "j" cannot create resource "aiservices" in API group '
                '"aiservice.dev" in the namespace "team"'
            ),
            False,
        ),
        ("Forbidden", 'aiservices.aiservice.dev "a" is forbidden: User "j" cannot get resource "aiservices"', False),
        ("TooManyRequests", "the server has received too many requests", False),
        ("InternalError", 'Internal error occurred: failed calling webhook "a.b"', False),
        ("ServiceUnavailable", "the server is currently unable to handle the request", False),
        ("Timeout", "the server was unable to return a response", False),
        ("", "etcdserver: leader changed", False),
    ],
)
def test_which_answers_are_about_the_object(reason: str, words: str, verdict: bool) -> None:
    assert is_verdict(RefusedError(words, reason)) is verdict


def test_the_report_for_people() -> None:
    good, refused = examined(("spec.replicas", 3)), Report("AIService bad", "team", None, ("spec.replicas: no",))
    text = render(Summary((good, refused), ("a note",)), Paint(on=False), 100)
    assert max(len(line) for line in text.splitlines() if "─" not in line) <= 100
    assert text.splitlines()[0] == "AIService whisper (namespace team) would be created"
    assert "  │  └─ Job mc-" in text
    assert "AIService bad (namespace team) would not be accepted\n  spec.replicas: no" in text
    assert text.splitlines()[-5:] == [
        "In all",
        "  accepted    1 of 2 objects",
        "  capacity    1 of 1 service does not fit now",
        "  cost        about 1,533 USD a month",
        "  note        a note",
    ]
