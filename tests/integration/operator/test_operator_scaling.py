"""Fixed numbers of pods, autoscalers and suspension: nothing that runs is lost from one to the other."""

from __future__ import annotations

from typing import Any

from support.cluster import ControlPlane
from support.custom_metrics import custom_metrics
from support.fake_kubelet import loading, ready, untouched
from support.kube_api import wait_for
from support.operator_world import World, condition, model

FIVE = {"min": 1, "max": 8}


def replicas(world: World, name: str) -> int:
    return int(world.api.get("Deployment", name)["spec"]["replicas"])


def owners_of_replicas(world: World, name: str) -> set[str]:
    """The field managers that own a Deployment's number of pods."""
    managed = world.api.get("Deployment", name)["metadata"]["managedFields"]
    return {item["manager"] for item in managed if "f:replicas" in item["fieldsV1"].get("f:spec", {})}


def scale(world: World, name: str, count: int) -> None:
    """As an autoscaler does it."""
    world.api.request(
        "PATCH",
        world.api.path("Deployment", name, "scale"),
        {"spec": {"replicas": count}},
        "application/merge-patch+json",
        {"fieldManager": "kube-controller-manager"},
    )


def autoscale(world: World, name: str, **limits: Any) -> None:
    world.api.patch("AIService", name, {"spec": {"replicas": None, "autoscaling": limits}})
    wait_for(lambda: world.api.find("HorizontalPodAutoscaler", name), f"an autoscaler of {name}")


def handed_over(world: World, name: str) -> None:
    def look() -> bool:
        annotations = world.api.get("Deployment", name)["metadata"]["annotations"]
        return bool(annotations["aiservice.dev/scaling"] == "autoscaled")

    wait_for(look, f"the number of pods of {name} is the autoscaler's")


def test_what_runs_goes_on_when_an_autoscaler_takes_over_and_back(world: World) -> None:
    world.serve("five", replicas=5)
    world.until_serving("five")
    before = {pod["metadata"]["uid"] for pod in pods(world, "five")}
    autoscale(world, "five", **FIVE)
    handed_over(world, "five")
    service = world.until_serving("five")
    assert service["status"]["readyReplicas"] == 5
    assert {pod["metadata"]["uid"] for pod in pods(world, "five")} == before, "no pod was stopped meanwhile"
    assert owners_of_replicas(world, "five") == {"aiservice-operator-handover"}

    # The autoscaler decides, and a change of the spec leaves its number alone.
    scale(world, "five", 3)
    world.api.patch("AIService", "five", {"spec": {"engine": {"args": ["--new"]}}})
    service = world.until_serving("five")
    wait_for(lambda: "--new" in str(world.api.get("Deployment", "five")["spec"]["template"]), "the new argument")
    assert replicas(world, "five") == 3
    assert owners_of_replicas(world, "five") == {"kube-controller-manager"}

    world.api.patch("AIService", "five", {"spec": {"replicas": 2, "autoscaling": None}})
    world.until_gone("HorizontalPodAutoscaler", "five")
    service = world.until_serving("five")
    assert service["status"]["readyReplicas"] == 2
    assert "aiservice-operator" in owners_of_replicas(world, "five")

    # And once more: the marks of the first time do not stand in the way.
    autoscale(world, "five", **FIVE)
    handed_over(world, "five")
    assert replicas(world, "five") == 2


def pods(world: World, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.api.list("Pod", f"app.kubernetes.io/instance={name}")
    return found


def test_a_deployment_that_an_autoscaler_has_is_written_once(world: World) -> None:
    world.serve("modest", autoscaling={"min": 1, "max": 3})
    world.until_serving("modest")
    deployment = world.api.get("Deployment", "modest")
    writes = [item for item in deployment["metadata"]["managedFields"] if item["manager"].startswith("aiservice-")]
    assert [item["manager"] for item in writes] == ["aiservice-operator"]
    assert deployment["metadata"]["generation"] == 1
    assert replicas(world, "modest") == 1
    assert world.api.get("HorizontalPodAutoscaler", "modest")["metadata"].get("generation", 1) == 1


def test_suspended_nothing_runs_and_the_model_stays(world: World) -> None:
    world.serve("paused", replicas=2, suspend=True)
    service = world.until("AIService", "paused", "Ready", "True", "Suspended")
    cache = service["status"]["modelCache"]
    assert pods(world, "paused") == []
    assert condition(world.api.get("ModelCache", cache), "Ready")["status"] == "True"
    world.api.patch("AIService", "paused", {"spec": {"suspend": False}})
    assert world.until_serving("paused")["status"]["readyReplicas"] == 2
    world.api.patch("AIService", "paused", {"spec": {"suspend": True}})
    world.until("AIService", "paused", "Ready", "True", "Suspended")
    wait_for(lambda: pods(world, "paused") == [], "no pod is left")
    assert world.api.find("PersistentVolumeClaim", cache) is not None
    assert world.api.find("PodDisruptionBudget", "paused") is None


def test_suspended_nothing_runs_though_the_spec_is_rejected(world: World) -> None:
    world.serve("refused", autoscaling={"min": 2, "max": 4})
    world.until_serving("refused")
    template = world.api.get("Deployment", "refused")["spec"]["template"]
    world.api.patch("AIService", "refused", {"spec": {"suspend": True, "profile": "tpu"}})
    world.until_gone("HorizontalPodAutoscaler", "refused")
    wait_for(lambda: pods(world, "refused") == [], "no pod is left")
    service = world.until("AIService", "refused", "Available", "False", "Suspended")
    assert condition(service, "Accepted")["reason"] == "UnknownProfile"
    assert world.api.get("Deployment", "refused")["spec"]["template"] == template

    # Mended, it is as before.
    world.api.patch("AIService", "refused", {"spec": {"suspend": None, "profile": "cpu"}})
    assert world.until_serving("refused")["status"]["readyReplicas"] == 2
    handed_over(world, "refused")


def test_an_autoscaler_takes_over_while_a_model_is_downloaded(world: World) -> None:
    world.serve("between", replicas=3)
    world.until_serving("between")
    world.kubelet.download = untouched
    edit = {"model": model("between-2"), "engine": {"args": ["--new"]}, "replicas": None, "autoscaling": FIVE}
    world.api.patch("AIService", "between", {"spec": edit})
    wait_for(lambda: world.api.find("HorizontalPodAutoscaler", "between"), "an autoscaler")
    scale(world, "between", 2)
    wait_for(lambda: len(pods(world, "between")) == 2, "two pods of the old model")
    assert "--new" not in str(world.api.get("Deployment", "between")["spec"]["template"])
    world.kubelet.reset()
    handed_over(world, "between")
    assert replicas(world, "between") == 2, "what the autoscaler has set stays"
    world.until_serving("between")


def test_an_autoscaled_service_resumes_at_its_least(world: World) -> None:
    world.serve("resumed", autoscaling={"min": 2, "max": 4}, suspend=True)
    world.until("AIService", "resumed", "Ready", "True", "Suspended")
    assert world.api.find("HorizontalPodAutoscaler", "resumed") is None
    world.api.patch("AIService", "resumed", {"spec": {"suspend": False}})
    service = world.until_serving("resumed")
    assert service["status"]["readyReplicas"] == 2
    assert world.api.get("HorizontalPodAutoscaler", "resumed")["spec"]["minReplicas"] == 2


def test_scaled_to_none_by_hand_it_is_woken(world: World) -> None:
    """An autoscaler leaves a Deployment of none alone for ever."""
    world.serve("woken", autoscaling={"min": 1, "max": 4})
    world.until_serving("woken")
    scale(world, "woken", 0)
    wait_for(lambda: replicas(world, "woken") == 1, "a pod is wanted again")
    world.until_serving("woken")


def test_while_a_pod_loads_none_is_taken_away(world: World) -> None:
    world.serve("steady", autoscaling={"min": 1, "max": 4})
    world.until_serving("steady")
    served = {pod["metadata"]["uid"] for pod in pods(world, "steady")}
    world.kubelet.serve = lambda pod: (ready if pod["metadata"]["uid"] in served else loading)(pod)
    scale(world, "steady", 2)

    def policy() -> str:
        spec = world.api.get("HorizontalPodAutoscaler", "steady")["spec"]
        return str(spec["behavior"]["scaleDown"]["selectPolicy"])

    wait_for(lambda: policy() == "Disabled", "the autoscaler may not scale down")
    world.kubelet.reset()
    world.until_serving("steady")
    wait_for(lambda: policy() == "Max", "the autoscaler may scale down again")


def test_a_metric_that_is_missing_is_said_with_what_to_do(world: World) -> None:
    """By the real autoscaler, which looks every fifteen seconds."""
    world.serve("blind", autoscaling={"min": 1, "max": 3})
    world.until_serving("blind")
    service = world.until("AIService", "blind", "Autoscaling", "False", "MetricMissing", 60)
    message = condition(service, "Autoscaling")["message"]
    assert "prometheus-adapter" in message
    assert "custom.metrics.k8s.io" in message or "custom metrics API" in message
    assert condition(service, "Ready")["status"] == "True"


def test_the_autoscaler_follows_the_requests_in_flight(world: World, control_plane: ControlPlane) -> None:
    """Kubernetes' own autoscaler asks for the metric by the name, and with the labels, that it was given."""
    world.serve("busy", autoscaling={"min": 1, "max": 3, "targetConcurrency": 4})
    world.until_serving("busy")
    world.until("AIService", "busy", "Autoscaling", "False", "MetricMissing", 90)
    with custom_metrics(control_plane, world.namespace) as in_flight:
        in_flight.each = 4
        world.until("AIService", "busy", "Autoscaling", "True", "Active", 90)
        assert replicas(world, "busy") == 1
        in_flight.each = 40
        wait_for(lambda: replicas(world, "busy") == 3, "as many pods as the load asks for, and no more", 90)
        world.until("AIService", "busy", "Autoscaling", "True", "AtMaximum", 60)
        service = world.until_serving("busy")
        assert service["status"]["readyReplicas"] == 3

        # A change of the spec replaces three pods by three.
        world.api.patch("AIService", "busy", {"spec": {"engine": {"args": ["--new"]}}})
        wait_for(lambda: "--new" in str(world.api.get("Deployment", "busy")["spec"]["template"]), "the new argument")
        service = world.until_serving("busy", 60)
        assert service["status"]["readyReplicas"] == 3
