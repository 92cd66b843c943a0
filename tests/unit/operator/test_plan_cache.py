"""Whether a ModelCache exists, whose it is, and when it goes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from aiservice_operator import names
from aiservice_operator.kinds import Apis, Json, Kind
from aiservice_operator.observed import Cache, Service, parse
from aiservice_operator.plan import Apply, Delete, plan_service
from support.cache_objects import HOUR, decide, downloaded_claim, inline, mine, steps
from support.operator_objects import MODEL, NOW, SETTINGS, service, timestamp
from support.operator_views import view as service_view

REFERRING = {"model": None, "modelCacheRef": {"name": "mine"}}
HELD: dict[str, Any] = {"finalizers": [names.FINALIZER]}


def test_a_model_stated_inline_gets_a_cache_that_all_who_state_it_own() -> None:
    (action,) = decide(None, users=(service("one"), service("two"))).actions
    assert isinstance(action, Apply)
    assert [owner["name"] for owner in action.body["metadata"]["ownerReferences"]] == ["one", "two"]
    assert action.body["metadata"]["finalizers"] == [names.FINALIZER]


@pytest.mark.parametrize(
    "users",
    [
        (),
        (service(spec=REFERRING),),
        (service(spec={"profile": "none-such"}),),
        (service(spec={"tasks": ["text-to-speech"]}),),
    ],
    ids=["nobody", "by reference", "unknown profile", "no engine"],
)
def test_nothing_is_made_for_those_who_state_no_model_or_cannot_be_served(users: tuple[Service, ...]) -> None:
    assert decide(None, users=users).actions == ()


WRITABLE: Json = {
    "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "disk"}}],
    "volumeMounts": [{"name": "v", "mountPath": "/data"}],
}
CLAIMED: Json = {"profile": None, "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]}


@pytest.mark.parametrize(
    ("spec", "known", "served"),
    [
        ({}, {}, True),
        (CLAIMED, {}, False),
        (CLAIMED, {"apis": Apis(dynamic_resources=True)}, True),
        ({"pod": WRITABLE}, {}, True),
        ({"pod": WRITABLE}, {"cache_claims": frozenset({"disk"})}, False),
        ({"profile": "nvidia-t4", "precision": "fp16", "gpuMemory": "99Gi", "gpu": {"memory": "24Gi"}}, {}, False),
    ],
)
def test_nothing_is_downloaded_for_a_service_that_is_rejected(spec: Json, known: dict[str, Any], served: bool) -> None:
    user = service(spec=spec)
    assert (plan_service(service_view(user, **known), SETTINGS, NOW).rejection is None) is served
    assert steps(decide(None, users=(user,), **known)) == (["apply ModelCache"] if served else [])
    assert steps(decide(None, users=(service("other"), user), **known)) == ["apply ModelCache"], "another asks for it"


def test_owners_come_and_go() -> None:
    one, two = service("one"), service("two")
    assert "apply ModelCache" not in steps(decide(inline((one,)), users=(one,)))
    assert steps(decide(inline((one,)), users=(one, two)))[0] == "apply ModelCache"
    assert steps(decide(inline((one, two)), users=(one,)))[0] == "apply ModelCache"


def test_what_nobody_uses_any_more_is_let_go_and_then_deleted_as_it_is_known() -> None:
    one = service("one")
    released = decide(inline((one,)))
    assert released.ends
    (action,) = released.actions
    assert isinstance(action, Apply)
    assert action.body["metadata"]["finalizers"] == action.body["metadata"]["ownerReferences"] == []
    (action,) = decide(inline(())).actions
    assert isinstance(action, Delete)
    assert (action.uid, action.version) == (f"uid-{inline(()).meta.name}", 1)
    going = inline((one,), deletionTimestamp=timestamp(NOW))
    assert steps(decide(going)) == ["apply ModelCache"]
    assert decide(inline((), deletionTimestamp=timestamp(NOW))).actions == ()


def test_one_that_is_deleted_while_in_use_keeps_all_it_has() -> None:
    one = service("one")
    going = inline((one,), deletionTimestamp=timestamp(NOW))
    plan = decide(going, users=(one,), claim=downloaded_claim(going))
    assert plan.actions == ()
    assert plan.proof is not None


def test_what_someone_changed_by_hand_of_an_inline_cache_stays() -> None:
    one = service("one")
    by_hand = {"storage": {"size": "50Gi"}, "retention": {"policy": "Retain"}}
    edited = parse(Kind.MODEL_CACHE, {**inline((one,)).body, "spec": {**inline((one,)).body["spec"], **by_hand}})
    assert isinstance(edited, Cache)
    body = decide(edited, users=(one,)).actions[0]
    assert isinstance(body, Apply)
    assert body.body["spec"]["storage"]["size"] == "50Gi"
    assert body.body["spec"]["retention"] == {"policy": "Retain"}
    assert body.body["metadata"]["ownerReferences"] == []


def test_a_cache_of_a_user_is_held_while_it_is_in_use_and_never_deleted() -> None:
    user = service(spec=REFERRING)
    assert steps(decide(mine(), users=(user,)))[0] == "apply ModelCache"
    assert steps(decide(mine(**HELD), users=(user,))) == ["apply PersistentVolumeClaim"]
    assert steps(decide(mine(**HELD))) == ["apply ModelCache", "apply PersistentVolumeClaim"]
    assert steps(decide(mine(**HELD, deletionTimestamp=timestamp(NOW)))) == ["apply ModelCache"]
    assert "apply ModelCache" not in steps(decide(mine(deletionTimestamp=timestamp(NOW)), users=(user,)))


def test_a_pvc_source_needs_nothing() -> None:
    assert decide(mine({"pvc": {"claimName": "disk"}})).actions == ()


def test_one_that_this_version_cannot_read_is_only_let_go() -> None:
    strange: Json = {"carrierPigeon": {}, "http": {"files": 3}}
    plan = decide(mine(strange, **HELD))
    assert (steps(plan), plan.ends) == (["apply ModelCache"], False)
    assert decide(mine(strange)).actions == ()


# How long a cache outlives its users.


def kept(policy: str, after: str | None = None) -> Json:
    return {**MODEL, "retention": {"policy": policy, **({"after": after} if after else {})}}


def test_an_inline_cache_that_outlives_its_users_is_owned_by_nobody() -> None:
    """Or the garbage collector would delete it with the last of them."""
    one = service("one", {"model": kept("Retain")})
    (action,) = decide(None, users=(one,)).actions
    assert isinstance(action, Apply)
    assert action.body["metadata"]["ownerReferences"] == []
    assert action.body["metadata"]["finalizers"] == [names.FINALIZER]


def test_one_that_is_retained_is_let_go_and_stays() -> None:
    retained = inline((service("one"),), kept("Retain"))
    plan = decide(retained, claim=downloaded_claim(retained))
    assert (steps(plan), plan.ends, plan.ends_at) == (["apply ModelCache"], False, None)
    assert plan.unused_since == NOW
    free = inline((), kept("Retain"), status={"unusedSince": timestamp(NOW - 1000 * HOUR)})
    plan = decide(free, claim=downloaded_claim(free))
    assert (plan.actions, plan.ends) == ((), False)


def test_one_that_was_unused_for_long_enough_is_deleted_as_it_is_known() -> None:
    spec = kept("DeleteWhenUnused", "2h")
    makers: list[Callable[..., Cache]] = [functools.partial(inline, (), spec), functools.partial(mine, spec)]
    for make in makers:
        known = make(status={"unusedSince": timestamp(NOW - HOUR)})
        plan = decide(known, claim=downloaded_claim(known))
        assert (plan.actions, plan.ends, plan.ends_at) == ((), False, NOW + HOUR)
        plan = decide(make(status={"unusedSince": timestamp(NOW - 2 * HOUR)}))
        (action,) = plan.actions
        assert isinstance(action, Delete)
        assert (action.version, plan.ends) == (1, True)


def test_one_that_is_used_again_is_not_deleted() -> None:
    spec = kept("DeleteWhenUnused", "2h")
    one = service("one", {"model": spec})
    known = inline((one,), spec, status={"unusedSince": timestamp(NOW - 3 * HOUR)})
    plan = decide(known, users=(one,), claim=downloaded_claim(known))
    assert (plan.actions, plan.ends, plan.unused_since, plan.ends_at) == ((), False, None, None)


def test_without_a_time_it_goes_with_its_last_user_but_not_before_the_first() -> None:
    spec = kept("DeleteWhenUnused")
    fresh = mine(spec)
    assert not decide(fresh, claim=downloaded_claim(fresh)).ends
    assert decide(fresh, claim=downloaded_claim(fresh)).unused_since == fresh.meta.created
    assert steps(decide(mine(spec, **HELD))) == ["apply ModelCache"], "let go first"
    assert steps(decide(mine(spec, status={"usedBy": ["one"]}))) == ["delete ModelCache"]


def test_with_a_time_one_that_nobody_ever_used_goes_as_well() -> None:
    spec = kept("DeleteWhenUnused", "15m")
    assert not decide(mine(spec)).ends
    assert decide(mine(spec), now=NOW + timedelta(minutes=5)).ends


def test_without_a_policy_a_cache_of_a_user_stays() -> None:
    known = mine(status={"unusedSince": timestamp(NOW - 1000 * HOUR)})
    plan = decide(known, claim=downloaded_claim(known))
    assert (plan.actions, plan.ends, plan.ends_at) == ((), False, None)
    assert plan.unused_since == NOW - 1000 * HOUR
