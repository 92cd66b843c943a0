"""Pods that stay as they are, as their next model is not cached or their spec is rejected: only their number passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aiservice_api.v1alpha1 import Condition
from aiservice_operator import names
from aiservice_operator.capacity import Capacity
from aiservice_operator.kinds import Apis, Json, Kind
from aiservice_operator.observed import Cache, Child
from aiservice_operator.plan import Action, Apply, Delete, Scale, ServicePlan, ServiceView, plan_service
from aiservice_operator.status import service_status
from support.operator_objects import MODEL, NOW, SETTINGS, cache, live, service, timestamp
from support.operator_views import serving, settled, with_status

OLD = cache("old", ready=True)
NEW = names.cache_name(service().spec.model)  # type: ignore[union-attr, arg-type] # it is stated
LOADING, READY = cache(NEW, ready=False, ours=True), cache(NEW, ready=True, ours=True)
REFERRING: Json = {"model": None, "modelCacheRef": {"name": "old"}}


def served(**spec: Any) -> ServiceView:
    """A service of the old model with two pods."""
    known = service(spec={**REFERRING, "replicas": 2, **spec})
    return serving(known, 2, cache=OLD, mounted=OLD, apis=Apis(pod_monitors=True))


def switched(before: ServiceView, new: Cache | None = LOADING, **spec: Any) -> ServiceView:
    """The same after an edit that names another model, too."""
    return replace(before, service=service(spec={"replicas": 2, **spec}), cache=new, capacity=Capacity())


def planned(view: ServiceView) -> dict[Kind, Action]:
    return {action.identity.kind: action for action in plan_service(view, SETTINGS, NOW).actions}


CHANGES: list[Json] = [
    {"engine": {"image": "example.test/other:2"}},
    {"engine": {"args": ["--x"]}},
    {"profile": "nvidia-l4", "precision": "fp32"},
    {"tasks": ["image-to-text"], "engine": {"image": "own:1"}},
    {"pod": {"sidecars": [{"name": "a", "image": "a:1", "ports": [{"name": "a", "containerPort": 9}]}]}},
    {"resources": {"limits": {"memory": "9Gi"}}, "network": {"restrict": False}},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_what_is_changed_together_with_the_model_waits_for_it(change: Json) -> None:
    view = switched(served(), **change)
    assert planned(view) == {}
    assert plan_service(view, SETTINGS, NOW).precision is None, "pods go on as they were told"
    steps = planned(replace(view, cache=READY))
    rolled = steps[Kind.DEPLOYMENT]
    assert isinstance(rolled, Apply)
    template = rolled.body["spec"]["template"]
    assert template["metadata"]["annotations"][names.CACHE_ANNOTATION] == NEW
    if "tasks" in change:
        assert {Kind.SERVICE, Kind.NETWORK_POLICY, Kind.POD_MONITOR} < steps.keys()


def test_a_secret_that_changes_meanwhile_waits_too() -> None:
    before = settled(service(spec=REFERRING), cache=OLD, mounted=OLD, references="aaaa")
    assert planned(switched(replace(before, references="bbbb"), replicas=1)) == {}


def test_how_many_pods_there_are_does_not_wait() -> None:
    other: Json = {"engine": {"args": ["--new"]}}
    assert planned(switched(served(), replicas=3, **other)) == {
        Kind.DEPLOYMENT: Scale(scaled().id, "uid-whisper", 3, "3 instead of 2 pods are wanted")
    }
    suspended = planned(switched(served(), suspend=True, **other))
    assert suspended[Kind.DEPLOYMENT] == Scale(scaled().id, "uid-whisper", 0, "0 instead of 2 pods are wanted")
    assert isinstance(suspended[Kind.DISRUPTION_BUDGET], Delete)
    auto = planned(switched(served(), replicas=None, autoscaling={"min": 1, "max": 4}, **other))
    assert list(auto) == [Kind.AUTOSCALER], "it goes on from the pods that there are"
    budget = planned(switched(served(), disruption={"minAvailable": 1}, **other))
    assert list(budget) == [Kind.DISRUPTION_BUDGET]


def scaled(count: int = 2) -> Child:
    deployment = served().deployment
    assert deployment is not None
    return replace(deployment, body={**deployment.body, "spec": {**deployment.body["spec"], "replicas": count}})


def test_an_autoscaler_is_given_a_pod_to_begin_with() -> None:
    view = replace(served(), deployment=scaled(0))
    steps = planned(switched(view, replicas=None, autoscaling={"min": 3, "max": 4}, engine={"args": ["--x"]}))
    wake = steps[Kind.DEPLOYMENT]
    assert isinstance(wake, Scale)
    assert wake.replicas == 3


def test_what_the_pods_do_not_depend_on_is_repaired() -> None:
    view = switched(served(), engine={"args": ["--x"]})
    assert list(planned(replace(view, account=None))) == [Kind.SERVICE_ACCOUNT]
    assert list(planned(replace(view, endpoint=None))) == [Kind.SERVICE]
    assert view.deployment is not None
    damaged = live(Kind.DEPLOYMENT, view.deployment.body, labels={})
    assert list(planned(switched(replace(served(), deployment=damaged)))) == [Kind.DEPLOYMENT], "pods would be the same"


def test_a_cache_that_is_not_ready_just_now_holds_nothing() -> None:
    """Its files are those that are asked for: pods can be given what they need to serve them."""
    before = serving(service(), cache=READY, mounted=READY)
    view = replace(before, service=service(spec={"engine": {"args": ["--x"]}}), cache=LOADING, mounted=LOADING)
    assert isinstance(planned(view)[Kind.DEPLOYMENT], Apply)


# Nothing is to run.

REJECTED: Json = {"profile": "tpu"}
AUTO: Json = {"replicas": None, "autoscaling": {"min": 2, "max": 4}}


def stopped(known: ServiceView, **spec: Any) -> dict[Kind, Action]:
    plan = plan_service(replace(known, service=service(spec={**REFERRING, **spec})), SETTINGS, NOW)
    return {action.identity.kind: action for action in plan.actions}


@pytest.mark.parametrize("none", [{"suspend": True}, {"replicas": 0}], ids=str)
def test_nothing_runs_though_the_spec_is_rejected(none: Json) -> None:
    steps = stopped(served(**AUTO), **REJECTED, **none)
    assert {kind: type(step) for kind, step in steps.items()} == {
        Kind.AUTOSCALER: Delete,
        Kind.DISRUPTION_BUDGET: Delete,
        Kind.DEPLOYMENT: Scale,
    }
    assert steps[Kind.DEPLOYMENT] == Scale(scaled().id, "uid-whisper", 0, "0 instead of 1 pods are wanted")


@pytest.mark.parametrize("none", [{"suspend": True}, {"replicas": 0}], ids=str)
def test_nothing_runs_though_no_cache_can_be_mounted(none: Json) -> None:
    gone = replace(served(**AUTO), cache=None, mounted=None)
    assert set(stopped(gone, **none)) == {Kind.AUTOSCALER, Kind.DISRUPTION_BUDGET, Kind.DEPLOYMENT}
    assert stopped(gone, replicas=5) == {}


def test_pods_get_their_policy_back_whatever_is_wrong() -> None:
    open_to_all = replace(served(), policy=None)
    for view in (replace(open_to_all, cache=None, mounted=None), switched(open_to_all)):
        assert list(planned(view)) == [Kind.NETWORK_POLICY]
    assert list(stopped(open_to_all, **REJECTED)) == [Kind.NETWORK_POLICY]
    assert stopped(replace(open_to_all, deployment=None), **REJECTED) == {}, "there are no pods"
    assert stopped(open_to_all, **REJECTED, network={"restrict": False}) == {}


def test_a_rejected_spec_changes_no_other_number() -> None:
    assert stopped(served(), **REJECTED, replicas=5) == {}
    assert stopped(replace(served(), deployment=None), **REJECTED, suspend=True) == {}


def test_what_is_not_the_services_is_not_stopped() -> None:
    deployment = scaled()
    stranger = {"kind": "AIService", "name": "whisper", "uid": "uid-other", "controller": True}
    theirs = live(Kind.DEPLOYMENT, deployment.body, ownerReferences=[stranger])
    going = live(Kind.DEPLOYMENT, deployment.body, deletionTimestamp=timestamp(NOW))
    for other in (theirs, going):
        assert Kind.DEPLOYMENT not in stopped(replace(served(), deployment=other), **REJECTED, suspend=True)


def told(view: ServiceView) -> dict[str, Condition]:
    plan: ServicePlan = plan_service(view, SETTINGS, NOW)
    status = service_status(view, plan, (), SETTINGS, now=NOW, words={})
    return {condition.type: condition for condition in status.conditions}


def at_rest(**spec: Any) -> ServiceView:
    view = replace(served(), deployment=scaled(0), service=service(spec={**REFERRING, **REJECTED, **spec}))
    return with_status(view, {"observedGeneration": 1})


@pytest.mark.parametrize(
    ("none", "reason", "words"),
    [
        ({"suspend": True}, "Suspended", "Meanwhile nothing runs, as asked by spec.suspend."),
        ({"replicas": 0}, "Idle", "Meanwhile nothing runs, as asked."),
    ],
)
def test_status_says_both(none: Json, reason: str, words: str) -> None:
    found = told(at_rest(**none))
    assert {name: found[name].reason for name in ("Accepted", "Ready", "Available", "Scheduled")} == {
        "Accepted": "UnknownProfile",
        "Ready": "UnknownProfile",
        "Available": reason,
        "Scheduled": reason,
    }
    assert found["Ready"].message.endswith(words)


def test_woken_with_a_rejected_spec_nothing_starts_and_status_says_why() -> None:
    assert plan_service(at_rest(replicas=2), SETTINGS, NOW).actions == ()
    found = told(at_rest(replicas=2))
    assert {found[name].reason for name in ("Ready", "Available", "Scheduled")} == {"UnknownProfile"}


# Claims that others are served from.


@pytest.mark.parametrize(
    ("claim", "spec", "cached", "known"),
    [
        (NEW, {}, None, ()),
        ("mc-0123456789abcdef", {}, None, ()),
        ("old", REFERRING, None, ()),
        ("disk", REFERRING, cache("old", {"pvc": {"claimName": "disk"}}, ready=True), ()),
        ("lora", {}, None, ("lora",)),
    ],
)
def test_the_claim_of_a_cache_is_not_mounted_writable(
    claim: str, spec: Json, cached: Cache | None, known: tuple[str, ...]
) -> None:
    def rejection(name: str, *, read_only: bool) -> str | None:
        volume = {"name": "v", "persistentVolumeClaim": {"claimName": name, "readOnly": read_only}}
        asked = service(spec={"model": MODEL, **spec, "pod": {"volumes": [volume]}})
        plan = plan_service(
            replace(served(), service=asked, cache=cached, cache_claims=frozenset(known)), SETTINGS, NOW
        )
        return f"{plan.rejection.reason}: {plan.rejection.message}" if plan.rejection is not None else None

    found = rejection(claim, read_only=False)
    assert found is not None
    assert found.startswith(f"MountConflict: spec.pod.volumes has the claim {claim} of a ModelCache")
    assert "set persistentVolumeClaim.readOnly to true" in found
    assert rejection(claim, read_only=True) is None
    assert rejection("mine", read_only=False) is None
