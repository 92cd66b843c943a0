"""What is decided for an AIService, case by case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aiservice_operator.capacity import Capacity
from aiservice_operator.kinds import Kind
from aiservice_operator.observed import Cache
from aiservice_operator.plan import Action, Apply, Bodies, ServicePlan, ServiceView
from aiservice_operator.plan import plan_service as plan_at
from aiservice_operator.settings import Settings
from support.operator_objects import MODEL, NOW, SETTINGS, cache, condition, live, service, timestamp
from support.operator_views import settled, view

READY = cache("mc-443918c0b15e3fd1", ready=True, ours=True)
LOADING = cache("mc-443918c0b15e3fd1", ready=False, ours=True)


def plan_service(known: ServiceView, settings: Settings = SETTINGS) -> ServicePlan:
    return plan_at(known, settings, NOW)


def kinds(plan: ServicePlan) -> list[str]:
    return [action.identity.kind for action in plan.actions]


def test_nothing_is_made_before_the_model_is_cached() -> None:
    assert plan_service(view(service())).actions == ()
    assert plan_service(view(service(), cache=LOADING)).actions == ()


def test_the_account_comes_before_the_pods_that_need_it() -> None:
    first = kinds(plan_service(view(service(), cache=READY)))
    assert first == ["ServiceAccount", "Service", "NetworkPolicy", "PodDisruptionBudget"]
    known = settled(service(), cache=READY)
    assert kinds(plan_service(replace(known, deployment=None))) == ["Deployment"]
    assert kinds(plan_service(replace(known, deployment=None, account=None))) == ["ServiceAccount"]


@pytest.mark.parametrize(("mode", "allowed"), [("ReadWriteOnce", "100%"), ("ReadWriteMany", 1)])
def test_pods_on_one_node_may_be_stopped_together(mode: str, allowed: object) -> None:
    known = cache("mc-443918c0b15e3fd1", {**MODEL, "storage": {"accessMode": mode}}, ready=True, ours=True)
    budget = settled(service(spec={"replicas": 2}), cache=known).budget
    assert budget is not None
    assert budget.body["spec"]["maxUnavailable"] == allowed


@pytest.mark.parametrize("mode", ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce"])
def test_a_claim_for_reading_on_many_nodes_is_mounted_so(mode: str) -> None:
    said = {"accessMode": mode, "conditions": [condition("Ready", "True", observedGeneration=1)]}
    known = cache("theirs", {"pvc": {"claimName": "disk"}}, status=said)
    made = settled(service(spec={"model": None, "modelCacheRef": {"name": "theirs"}}), cache=known).deployment
    assert made is not None
    source = made.body["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]
    assert source == {"claimName": "disk", **({"readOnly": True} if mode == "ReadOnlyMany" else {})}


def test_a_budget_follows_the_volume_of_its_pods() -> None:
    """The same spec, and what was built of it before: a cache's access mode is known when its claim is."""
    cached = condition("Ready", "True", observedGeneration=1)
    bodies, claimed = Bodies(), {"accessMode": "ReadWriteOnce", "conditions": [cached]}
    moved = cache("mc-443918c0b15e3fd1", {"pvc": {"claimName": "theirs"}}, status=claimed)
    before = settled(service(), cache=cache("mc-443918c0b15e3fd1", {"pvc": {"claimName": "theirs"}}, ready=True))
    assert plan_at(before, SETTINGS, NOW, bodies).actions == ()
    after = plan_at(replace(before, cache=moved, capacity=Capacity()), SETTINGS, NOW, bodies)
    assert "PodDisruptionBudget" in kinds(after)


def test_no_pod_begins_without_the_policy_that_is_to_guard_it() -> None:
    known = settled(service(), cache=READY)
    assert kinds(plan_service(replace(known, deployment=None, policy=None))) == ["NetworkPolicy"]
    assert kinds(plan_service(replace(known, policy=None))) == ["NetworkPolicy"], "what serves goes on"
    unguarded = settled(service(spec={"network": {"restrict": False}}), cache=READY)
    assert unguarded.policy is None
    assert kinds(plan_service(replace(unguarded, deployment=None))) == ["Deployment"]


def test_what_is_as_wanted_is_left_alone() -> None:
    assert plan_service(settled(service(), cache=READY)).actions == ()


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 2},
        {"engine": {"args": ["--x"]}},
        {"engine": {"env": [{"name": "A", "value": "1"}]}},
        {"profile": "nvidia-l4"},
        {"resources": {"limits": {"memory": "9Gi"}}},
    ],
    ids=str,
)
def test_each_field_reaches_the_deployment_and_back(change: dict[str, Any]) -> None:
    before, after = settled(service(), cache=READY), settled(service(spec=change), cache=READY)

    assert kinds(plan_service(replace(before, service=after.service, capacity=Capacity()))) == ["Deployment"]
    assert kinds(plan_service(replace(after, service=before.service, capacity=Capacity()))) == ["Deployment"], (
        "what is no longer asked for goes"
    )


def test_a_precision_reaches_the_deployment() -> None:
    before = settled(service(spec={"profile": "nvidia-l4"}), cache=READY)
    exact = service(spec={"profile": "nvidia-l4", "precision": "fp32"})
    assert kinds(plan_service(replace(before, service=exact, capacity=Capacity()))) == ["Deployment"]


@pytest.mark.parametrize(
    ("spec", "settings", "reason", "words"),
    [
        (
            {"profile": "tpu"},
            SETTINGS,
            "UnknownProfile",
            "one of: cpu, nvidia-l4 (1 x nvidia.com/gpu, 24 GiB), nvidia-t4",
        ),
        ({"profile": "tpu"}, Settings(), "UnknownProfile", "set spec.resources instead"),
        ({"tasks": ["image-to-text"]}, SETTINGS, "NoEngine", "no image for image-to-text: set spec.engine.image"),
        ({"tasks": ["singing"]}, SETTINGS, "InvalidSpec", "spec.tasks.0"),
    ],
)
def test_specs_that_cannot_be_served(spec: dict[str, Any], settings: Settings, reason: str, words: str) -> None:
    plan = plan_service(view(service(spec=spec), cache=READY), settings)
    assert plan.actions == ()
    assert plan.rejection is not None
    assert plan.rejection.reason == reason
    assert words in plan.rejection.message


def test_an_own_image_needs_none_of_the_operators() -> None:
    plan = plan_service(
        view(service(spec={"tasks": ["image-to-text"], "engine": {"image": "own:1"}}), cache=READY), SETTINGS
    )
    assert plan.rejection is None


def test_the_old_model_is_served_until_the_new_one_is_cached() -> None:
    old = cache("old", ready=True)
    referring = service(spec={"model": None, "modelCacheRef": {"name": "old"}})
    served = replace(settled(referring, cache=old), mounted=old)

    def planned(cached: Cache, *, mounted: Cache | None = old, **spec: Any) -> tuple[Action, ...]:
        return plan_service(replace(served, service=service(spec=spec), cache=cached, mounted=mounted)).actions

    # Nothing else has changed: nothing is done.
    assert planned(LOADING) == ()
    # Another number of pods: of the old model.
    (action,) = planned(LOADING, replicas=3)
    assert isinstance(action, Apply)
    assert volume(action) == "old"
    # Cached: the new one.
    (action,) = planned(READY)
    assert isinstance(action, Apply)
    assert volume(action) == READY.meta.name
    # The old one is gone, and the new one is not there: what runs is left alone.
    assert planned(LOADING, mounted=None, replicas=3) == ()


def volume(action: Apply) -> str:
    volumes = action.body["spec"]["template"]["spec"]["volumes"]
    return str(volumes[0]["persistentVolumeClaim"]["claimName"])


def test_a_readiness_of_another_generation_does_not_count() -> None:
    stale = cache("mc-443918c0b15e3fd1", ready=True, generation=2)
    assert plan_service(view(service(), cache=stale)).actions == ()


def test_a_service_that_goes_gets_nothing_more() -> None:
    assert plan_service(view(service(deletionTimestamp=timestamp(NOW)), cache=READY)).actions == ()


def test_a_child_that_goes_is_waited_for() -> None:
    known = settled(service(), cache=READY)
    assert known.deployment is not None
    going = live(Kind.DEPLOYMENT, known.deployment.body, deletionTimestamp=timestamp(NOW))
    assert plan_service(replace(known, service=service(spec={"replicas": 2}), deployment=going)).actions == ()


def test_a_child_of_nobody_is_taken_and_one_of_another_is_looked_at_first() -> None:
    known = settled(service(), cache=READY)
    assert known.deployment is not None

    def owners(*references: dict[str, Any]) -> ServiceView:
        assert known.deployment is not None
        changed = live(Kind.DEPLOYMENT, known.deployment.body, ownerReferences=list(references))
        return replace(known, deployment=changed)

    (adopted,) = plan_service(owners()).actions
    assert isinstance(adopted, Apply)
    assert adopted.owner is None
    stranger = {"kind": "AIService", "name": "whisper", "uid": "uid-before", "controller": True}
    (looked,) = plan_service(owners(stranger)).actions
    assert isinstance(looked, Apply)
    assert looked.owner is not None


def test_a_pvc_source_is_mounted_where_it_is() -> None:
    disk = cache("disk-cache", {"pvc": {"claimName": "disk", "path": "models/w"}}, ready=True)
    known = settled(service(spec={"model": None, "modelCacheRef": {"name": "disk-cache"}}), cache=disk)
    assert known.deployment is not None
    pod = known.deployment.body["spec"]["template"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "disk"
    assert pod["containers"][0]["volumeMounts"][0] == {
        "name": "model",
        "mountPath": "/models",
        "subPath": "models/w",
        "readOnly": True,
    }
