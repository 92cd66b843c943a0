"""Who says how many pods there are, and which children a service has."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from aiservice_operator import names
from aiservice_operator.kinds import Apis, Json, Kind
from aiservice_operator.observed import Child
from aiservice_operator.plan import Action, Apply, Delete, ServiceView, plan_service
from aiservice_operator.plan.actions import HandOver
from aiservice_operator.settings import Network
from support.operator_objects import (
    NOW,
    SETTINGS,
    cache,
    condition,
    container_status,
    live,
    pod,
    service,
    timestamp,
)
from support.operator_views import serving, settled, with_status

READY = cache("mc-443918c0b15e3fd1", ready=True)
AUTO: Json = {"autoscaling": {"min": 2, "max": 4}}


def actions(known: ServiceView, spec: Json) -> dict[Kind, Action]:
    plan = plan_service(replace(known, service=service(spec=spec)), SETTINGS, NOW)
    return {action.identity.kind: action for action in plan.actions}


def applied(known: ServiceView, spec: Json) -> Apply:
    """The step for the Deployment."""
    action = actions(known, spec)[Kind.DEPLOYMENT]
    assert isinstance(action, Apply)
    return action


def mode(action: Apply) -> str:
    return str(action.body["metadata"]["annotations"][names.SCALING_ANNOTATION])


@pytest.mark.parametrize(("before", "kept"), [(3, 3), (5, 4), (1, 2), (0, 2)])
def test_what_runs_goes_on_when_an_autoscaler_takes_over(before: int, kept: int) -> None:
    known = serving(service(spec={"replicas": before}), before, cache=READY)
    action = applied(known, AUTO)
    assert action.hand_over == HandOver("uid-whisper", kept)
    assert "replicas" not in action.body["spec"]
    assert mode(action) == "autoscaled"


def test_the_hand_over_is_done_once_and_again_if_it_was_cut_off() -> None:
    known = serving(service(spec={"replicas": 3}), 3, cache=READY)
    action = applied(known, AUTO)
    # Cut off after the hand-over: nothing tells of it but the annotation, which is still the old one.
    assert applied(known, AUTO) == action
    scaled = replace(known, deployment=live(Kind.DEPLOYMENT, action.body))
    changed = applied(scaled, {**AUTO, "engine": {"args": ["--x"]}})
    assert changed.hand_over is None
    assert "replicas" not in changed.body["spec"]


def test_scaled_to_none_by_hand_it_is_woken() -> None:
    known = scaled_to(0)
    assert applied(known, AUTO).hand_over == HandOver("uid-whisper", 2)
    assert actions(scaled_to(1), AUTO) == {}


def test_the_first_apply_has_nothing_to_hand_over() -> None:
    known = settled(service(spec=AUTO), cache=READY)
    assert applied(replace(known, deployment=None), AUTO).hand_over is None


def test_the_number_of_pods_comes_back_from_an_autoscaler() -> None:
    known = serving(service(spec=AUTO), 3, cache=READY)
    assert known.autoscaler is not None
    steps = actions(known, {"replicas": 2})
    assert steps[Kind.AUTOSCALER] == Delete(known.autoscaler.id, known.autoscaler.meta.uid, "no longer wanted")
    action = applied(known, {"replicas": 2})
    assert action.body["spec"]["replicas"] == 2
    assert mode(action) == "fixed"


@pytest.mark.parametrize("spec", [{"replicas": 3}, AUTO], ids=["fixed", "autoscaled"])
def test_suspended_nothing_runs_and_resumed_it_is_as_before(spec: Json) -> None:
    known = serving(service(spec=spec), 3, cache=READY)
    action = applied(known, {**spec, "suspend": True})
    assert action.body["spec"]["replicas"] == 0
    assert (Kind.AUTOSCALER in actions(known, {**spec, "suspend": True})) == ("autoscaling" in spec)
    asleep = replace(known, deployment=live(Kind.DEPLOYMENT, action.body), autoscaler=None)
    resumed = applied(asleep, spec)
    assert resumed.body["spec"].get("replicas") == spec.get("replicas")
    assert resumed.hand_over == (HandOver("uid-whisper", 2) if "autoscaling" in spec else None)


# While a pod loads.


def policy_of(known: ServiceView) -> str:
    """What the autoscaler may do downwards, after what is planned."""
    action = actions(known, AUTO).get(Kind.AUTOSCALER)
    body = known.autoscaler.body if action is None and known.autoscaler is not None else None
    if isinstance(action, Apply):
        body = action.body
    assert body is not None
    return str(body["spec"]["behavior"]["scaleDown"]["selectPolicy"])


def loading(**status: Any) -> Child:
    return pod("loading", container_status(running={}, **status))


def scaled_to(count: int, *pods: Child) -> ServiceView:
    known = serving(service(spec=AUTO), 1, cache=READY, pods=pods)
    assert known.deployment is not None
    body = known.deployment.body
    return replace(
        known, deployment=replace(known.deployment, body={**body, "spec": {**body["spec"], "replicas": count}})
    )


def test_a_pod_that_loads_is_not_scaled_away() -> None:
    ready = pod("a", {**container_status(running={}, ready=True), "conditions": [condition("Ready", "True")]})
    assert policy_of(scaled_to(3, ready)) == "Max"
    assert policy_of(scaled_to(3, ready, loading())) == "Disabled"
    assert policy_of(scaled_to(2, ready, loading())) == "Max", "at the least there is nothing to take away"


def test_a_pod_that_has_loaded_and_is_not_ready_later_does_not_count() -> None:
    """Readiness that flaps, or never comes back, must not keep the autoscaler from its work."""
    assert policy_of(scaled_to(3, loading(started=True))) == "Max"


def test_a_pod_that_should_have_loaded_long_ago_does_not_count() -> None:
    """One whose volume cannot be mounted, say, never fails and never loads."""
    late = timedelta(minutes=40)  # startSeconds, and what finding a node and pulling the image may take

    def stuck(placed: timedelta) -> Child:
        scheduled = condition("PodScheduled", "True", lastTransitionTime=timestamp(NOW - placed))
        creating = container_status(waiting={"reason": "ContainerCreating"})
        old = timestamp(NOW - timedelta(days=1))  # it waited for its node
        return pod("stuck", {**creating, "conditions": [scheduled]}, creationTimestamp=old)

    early = scaled_to(3, stuck(late - timedelta(seconds=1)))
    assert policy_of(early) == "Disabled"
    assert plan_service(early, SETTINGS, NOW).again_at == NOW + timedelta(seconds=1)
    over = scaled_to(3, stuck(late))
    assert policy_of(over) == "Max"
    assert plan_service(over, SETTINGS, NOW).again_at is None


def test_a_pod_that_failed_or_has_no_node_may_be_scaled_away() -> None:
    crashed = container_status(terminated={"exitCode": 1, "finishedAt": timestamp(NOW)})
    unplaced = pod("b")
    unplaced.body["spec"]["nodeName"] = ""
    assert policy_of(scaled_to(3, pod("a", crashed))) == "Max"
    assert policy_of(scaled_to(3, unplaced)) == "Max"
    assert policy_of(scaled_to(3, pod("c", container_status(running={}), deletionTimestamp=timestamp(NOW)))) == "Max"


# The other children.


def test_each_child_is_made_where_it_is_wanted() -> None:
    served = settled(service(spec=AUTO), cache=READY, apis=Apis(pod_monitors=True))
    for field in ("account", "endpoint", "deployment", "autoscaler", "budget", "policy", "monitor"):
        assert getattr(served, field) is not None, field
    assert actions(served, AUTO) == {}
    assert settled(service(spec=AUTO), cache=READY).monitor is None, "its API is not served"


def test_each_child_is_taken_away_where_it_is_not_wanted() -> None:
    known = settled(service(spec=AUTO), cache=READY)
    steps = actions(known, {"replicas": 0, "network": {"restrict": False}})
    for kind in (Kind.AUTOSCALER, Kind.DISRUPTION_BUDGET, Kind.NETWORK_POLICY):
        assert isinstance(steps[kind], Delete), kind
    disabled = SETTINGS.model_copy(update={"network": Network(enabled=False)})
    plan = plan_service(known, disabled, NOW)
    assert [(type(action), action.identity.kind) for action in plan.actions] == [(Delete, Kind.NETWORK_POLICY)]


def test_what_others_made_is_not_taken_away() -> None:
    known = settled(service(spec=AUTO), cache=READY)
    assert known.autoscaler is not None
    body = known.autoscaler.body
    stranger = {"kind": "AIService", "name": "whisper", "uid": "uid-other", "controller": True}
    theirs: list[Json] = [{"labels": {}, "ownerReferences": []}, {"ownerReferences": [stranger]}]
    for fields in theirs:
        others = live(Kind.AUTOSCALER, body, **fields)
        assert Kind.AUTOSCALER not in actions(replace(known, autoscaler=others), {})
    going = live(Kind.AUTOSCALER, body, deletionTimestamp=timestamp(NOW))
    assert Kind.AUTOSCALER not in actions(replace(known, autoscaler=going), {})


def test_claims_need_an_api_that_not_every_cluster_serves() -> None:
    spec: Json = {"resourceClaims": [{"name": "gpu", "resourceClaimName": "mine"}]}
    plan = plan_service(replace(settled(service(), cache=READY), service=service(spec=spec)), SETTINGS, NOW)
    assert plan.rejection is not None
    assert plan.rejection.reason == "NoDynamicResources"
    assert plan.actions == ()
    served = settled(service(spec=spec), cache=READY, apis=Apis(dynamic_resources=True))
    assert served.deployment is not None


# What pods take from Secrets and ConfigMaps.


def annotation(known: ServiceView) -> str | None:
    assert known.deployment is not None
    annotations: dict[str, str] = known.deployment.body["spec"]["template"]["metadata"]["annotations"]
    return annotations.get(names.REFERENCES_ANNOTATION)


def test_a_changed_secret_makes_new_pods() -> None:
    known = settled(service(), cache=READY, references="aaaa")
    assert annotation(known) == "aaaa"
    action = actions(replace(known, references="bbbb"), {})[Kind.DEPLOYMENT]
    assert isinstance(action, Apply)
    assert action.body["spec"]["template"]["metadata"]["annotations"][names.REFERENCES_ANNOTATION] == "bbbb"


def test_a_secret_that_is_missing_just_now_changes_nothing() -> None:
    known = settled(service(), cache=READY, references="aaaa")
    assert actions(replace(known, references=None), {}) == {}
    assert annotation(settled(service(), cache=READY, references=None)) is None


NAMING: Json = {"engine": {"env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "t"}}}]}}


def seen(known: ServiceView) -> str | None:
    assert known.deployment is not None
    return known.deployment.meta.annotations.get(names.SEEN_ANNOTATION)


def after(known: ServiceView, spec: Json | None = None, **fields: Any) -> ServiceView:
    """The same when something has changed and what is planned was applied."""
    known = replace(known, service=service(spec={**NAMING, **(spec or {})}), **fields)
    action = plan_service(known, SETTINGS, NOW).actions
    assert len(action) <= 1
    if action:
        assert isinstance(action[0], Apply)
        known = replace(known, deployment=live(Kind.DEPLOYMENT, action[0].body))
    return known


def test_a_secret_that_appears_later_replaces_no_pod_until_it_changes() -> None:
    """A pod that waits for it has read it as it started, and is loading: a rollout would kill it."""
    missing = settled(service(spec=NAMING), cache=READY, references=None)
    appeared = after(missing, references="aaaa")
    assert (annotation(appeared), seen(appeared)) == (None, "aaaa")
    assert template(appeared) == template(missing)
    assert plan_service(appeared, SETTINGS, NOW).actions == ()
    # Missing again, and back as it was: nothing happens.
    assert plan_service(replace(appeared, references=None), SETTINGS, NOW).actions == ()
    # Another number of pods is no rollout.
    more = after(appeared, {"replicas": 3})
    assert (annotation(more), seen(more)) == (None, "aaaa")
    # Changed: new pods, and from then on it is as ever.
    changed = after(more, {"replicas": 3}, references="bbbb")
    assert (annotation(changed), seen(changed)) == ("bbbb", None)


def test_another_rollout_takes_what_was_seen_with_it() -> None:
    appeared = after(settled(service(spec=NAMING), cache=READY, references=None), references="aaaa")
    rolled = after(appeared, {"engine": {"args": ["--x"]}})
    assert (annotation(rolled), seen(rolled)) == ("aaaa", None)


def template(known: ServiceView) -> Json:
    assert known.deployment is not None
    found: Json = known.deployment.body["spec"]["template"]
    return found


def test_a_status_decides_nothing_about_a_rollout_that_is_over() -> None:
    """A pod of a scaled-up service that waits for a node does not revise anything."""
    known = serving(service(spec={"profile": "nvidia-l4", "replicas": 2}), 2, cache=READY)
    scheduled = condition("PodScheduled", "False", "Unschedulable", "none")
    since = {**scheduled, "lastTransitionTime": timestamp(NOW - timedelta(hours=1))}
    waits = pod("b", {"phase": "Pending", "conditions": [since]})
    counts = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 1}
    plan = plan_service(replace(with_status(known, counts), pods=(waits,)), SETTINGS, NOW)
    assert (plan.actions, plan.again_at) == ((), None)
