"""Where a download runs: where its volume is one that all users can mount."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from aiservice_api.v1alpha1 import ModelCacheSpec
from aiservice_operator import names
from aiservice_operator.capacity import Capacity, Node
from aiservice_operator.desired.job import Placement
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Child, Service
from aiservice_operator.plan import CachePlan
from aiservice_operator.plan.placement import hosts_with_devices, place
from support.cache_objects import HOUR, applied, decide, failed, live_claim, mine, steps
from support.operator_objects import MODEL, SETTINGS, live, service

ONE = ModelCacheSpec.model_validate(MODEL)
MANY = ModelCacheSpec.model_validate({**MODEL, "storage": {"accessMode": "ReadWriteMany"}})


def user(name: str = "a", profile: str = "cpu", **pod: Any) -> Service:
    return service(name, {"profile": profile, "pod": pod or None})


def term(key: str, operator: str, *values: str) -> Json:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


def near(*terms: Json) -> Json:
    """The affinity of pods to nodes."""
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


def placed(*users: Service, spec: ModelCacheSpec = ONE) -> Placement:
    found = place(users, spec, SETTINGS)
    assert isinstance(found, Placement), found
    return found


def conflict(*users: Service) -> str:
    found = place(users, ONE, SETTINGS)
    assert isinstance(found, str), found
    assert "use a StorageClass with storage.accessMode ReadWriteMany" in found
    return found


def terms(found: Placement) -> list[Any]:
    return [item.model_dump(by_alias=True, exclude_none=True) for item in found.node_terms]


def test_without_users_it_runs_anywhere() -> None:
    assert placed() == Placement(one_node=True)


def test_node_selectors_of_profile_and_pod_add_up_and_the_pods_wins() -> None:
    found = placed(user(profile="nvidia-l4", nodeSelector={"zone": "a"}), user("b", nodeSelector={"disk": "ssd"}))
    assert found.node_selector == {"nvidia.com/gpu.product": "NVIDIA-L4", "zone": "a", "disk": "ssd"}
    found = placed(user(profile="nvidia-l4", nodeSelector={"nvidia.com/gpu.product": "NVIDIA-L40S"}))
    assert found.node_selector == {"nvidia.com/gpu.product": "NVIDIA-L40S"}


def test_selectors_that_exclude_each_other_are_told_with_their_services() -> None:
    found = conflict(user("a", nodeSelector={"zone": "a"}), user("b", nodeSelector={"zone": "b"}))
    assert "AIService a runs on nodes with zone=a and AIService b on nodes with zone=b" in found


def test_one_that_is_not_accepted_runs_nowhere() -> None:
    found = placed(user("a", nodeSelector={"zone": "a"}), user("b", "no-such", nodeSelector={"zone": "b"}))
    assert found.node_selector == {"zone": "a"}


GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
SPOT = {"key": "spot", "value": "yes", "effect": "NoSchedule"}
ALL = {"operator": "Exists"}


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ([GPU], [GPU], [GPU]),
        ([GPU], [], []),
        ([GPU, SPOT], [SPOT], [SPOT]),
        ([ALL], [SPOT], [SPOT]),
        ([{"key": "spot", "operator": "Exists"}], [SPOT], [SPOT]),
        ([{**SPOT, "value": "no"}], [SPOT], []),
        ([{**SPOT, "effect": "NoExecute"}], [SPOT], []),
    ],
)
def test_only_what_all_users_tolerate_is_tolerated(one: list[Json], other: list[Json], shared: list[Json]) -> None:
    """A volume on a node that one of them is kept from would be of no use to it."""
    found = placed(user("a", tolerations=one), user("b", tolerations=other))
    assert [item.model_dump(exclude_none=True) for item in found.tolerations] == shared


def test_what_many_nodes_can_mount_has_no_place() -> None:
    users = user("a", nodeSelector={"zone": "a"}, tolerations=[GPU]), user("b", nodeSelector={"zone": "b"})
    found = placed(*users, spec=MANY)
    assert (found.node_selector, found.node_terms, found.one_node) == ({}, [], False)
    assert [item.key for item in found.tolerations] == ["nvidia.com/gpu"]


def test_affinities_are_met_together() -> None:
    found = placed(
        user("a", affinity=near(term("zone", "In", "a", "b"), term("zone", "In", "c"))),
        user("b", affinity=near(term("disk", "Exists"))),
        user("c"),
    )
    assert terms(found) == [
        {
            "matchExpressions": [
                *term("zone", "In", "a", "b")["matchExpressions"],
                *term("disk", "Exists")["matchExpressions"],
            ]
        },
        {
            "matchExpressions": [
                *term("zone", "In", "c")["matchExpressions"],
                *term("disk", "Exists")["matchExpressions"],
            ]
        },
    ]


def test_the_same_affinity_of_many_is_stated_once() -> None:
    same = near(term("zone", "In", "a"), term("zone", "In", "b"))
    assert len(placed(*(user(name, affinity=same) for name in "abcdefgh")).node_terms) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (term("zone", "In", "a"), term("zone", "In", "b")),
        (term("zone", "In", "a"), term("zone", "NotIn", "a")),
        (term("zone", "Exists"), term("zone", "DoesNotExist")),
        (term("zone", "Gt", "3"), term("zone", "DoesNotExist")),
    ],
)
def test_affinities_that_exclude_each_other_are_told_with_their_services(one: Json, other: Json) -> None:
    found = conflict(user("a", affinity=near(one)), user("b", affinity=near(other)))
    assert "no node meets the node selectors and affinities of AIService a, b together" in found


def test_an_affinity_that_a_selector_excludes_is_told() -> None:
    assert "AIService b, a" in conflict(
        user("a", nodeSelector={"zone": "a"}), user("b", affinity=near(term("zone", "In", "b")))
    )


def test_alternatives_that_cannot_be_met_are_left_out() -> None:
    found = placed(
        user("a", nodeSelector={"zone": "a"}),
        user("b", affinity=near(term("zone", "In", "a"), term("zone", "In", "b"), {})),
    )
    assert terms(found) == [term("zone", "In", "a")]


def test_nodes_by_name() -> None:
    named = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
    assert terms(placed(user(affinity=near(named)))) == [named]
    other = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}
    conflict(user("a", affinity=near(named)), user("b", affinity=near(other)))


def test_too_many_alternatives_are_told_instead_of_left_out() -> None:
    users = [
        user(name, affinity=near(*(term(f"{name}{number}", "Exists") for number in range(9)))) for name in ("a", "b")
    ]
    assert "more than 64 alternatives" in conflict(*users)


def test_of_many_users_some_are_named() -> None:
    users = [user(f"user-{number:02}", nodeSelector={"zone": "b"}) for number in range(40)]
    found = conflict(*users, user("a", affinity=near(term("zone", "In", "a"))))
    assert "of AIService a, user-00, " in found
    assert "user-08 and 31 more together" in found


# Nodes with GPUs, which a download does not hold.


def node(
    name: str, gpus: int = 0, labels: Json | None = None, *, taints: tuple[Json, ...] = (), usable: bool = True
) -> Node:
    """One that others hold all of."""
    offers = {"nvidia.com/gpu": Decimal(gpus)}
    everywhere = {"kubernetes.io/hostname": f"{name}.host", **(labels or {})}
    return Node(name, everywhere, taints, usable, {}, frozenset(), offers)


PLAIN, CARD = node("cpu"), node("card", 1)
TAINTED = node("tainted", 8, taints=(GPU,))


def hosts(*users: Service, nodes: tuple[Node, ...], spec: ModelCacheSpec = ONE) -> tuple[str, ...]:
    return hosts_with_devices(placed(*users, spec=spec), nodes)


def on_gpus(name: str = "a", resource: str = "nvidia.com/gpu", count: int = 1, **pod: Any) -> Service:
    stated = {"profile": None, "gpu": {"resource": resource, "count": count}, "pod": pod or None}
    return service(name, stated)


def test_a_download_for_gpus_keeps_to_the_nodes_that_have_them() -> None:
    assert hosts(on_gpus(), nodes=(PLAIN, CARD)) == ("card.host",)
    assert hosts(on_gpus(count=2), nodes=(PLAIN, CARD, node("two", 2))) == ("two.host",)
    assert hosts(on_gpus(), user("b"), nodes=(PLAIN, CARD)) == ("card.host",), "one user has none"
    assert hosts(on_gpus(), nodes=(PLAIN, CARD, TAINTED)) == ("card.host",), "what no user tolerates is no place"
    assert hosts(on_gpus(tolerations=[GPU]), nodes=(PLAIN, CARD, TAINTED)) == ("card.host", "tainted.host")
    away = node("away", 1, usable=False)
    assert hosts(on_gpus(), nodes=(away, CARD, PLAIN)) == ("card.host", "away.host"), "one that is cordoned comes back"


def test_where_nodes_tell_nothing_a_download_runs_as_before() -> None:
    assert hosts(user(), nodes=(PLAIN, CARD)) == (), "nobody has a GPU"
    assert hosts(on_gpus(), nodes=(CARD,)) == (), "every node has one"
    assert hosts(on_gpus(), nodes=(PLAIN,)) == (), "an autoscaler may add nodes, and knows no names"
    assert hosts(on_gpus(), nodes=()) == ()
    assert hosts(on_gpus(), nodes=(PLAIN, CARD), spec=MANY) == (), "a volume for many nodes has no place"
    chosen = node("chosen", 1, {"pool": "a"})
    assert hosts(on_gpus(nodeSelector={"pool": "a"}), nodes=(PLAIN, CARD, chosen)) == (), "all that are chosen have one"


def test_a_job_does_not_name_every_node_of_a_large_cluster() -> None:
    many = tuple(node(f"card-{number:03}", 1) for number in range(200))
    assert len(hosts(on_gpus(), nodes=(PLAIN, *many))) == 64


def test_several_kinds_of_gpus_have_to_be_on_one_node() -> None:
    part = "nvidia.com/mig-1g.10gb"
    both = replace(CARD, labels={"kubernetes.io/hostname": "both"}, offers={**CARD.offers, part: Decimal(2)})
    assert hosts(on_gpus(), on_gpus("b", part), nodes=(CARD, both)) == ("both",)


PENDING: Json = {"phase": "Pending"}
GPU_USERS = (on_gpus(),)


def decided(capacity: Capacity | None, *jobs: Child, claimed: Json | None = PENDING) -> CachePlan:
    owner = mine(finalizers=[names.FINALIZER])
    claim = live_claim(owner, status=claimed) if claimed else live_claim(owner)
    return decide(owner, users=GPU_USERS, claim=claim, jobs=jobs, capacity=capacity)


def node_terms(job: Json) -> Any:
    affinity = job["spec"]["template"]["spec"]["affinity"]
    return affinity.get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")


def test_nodes_are_looked_at_before_a_download_chooses_one() -> None:
    first = decided(None)
    assert first.needs_capacity
    assert "apply Job" not in steps(first)
    plan = decided(Capacity((PLAIN, CARD)))
    assert not plan.needs_capacity
    job = applied(plan, Kind.JOB)
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["card.host"]}
    assert node_terms(job) == {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    assert node_terms(applied(decided(Capacity(refused="forbidden")), Kind.JOB)) is None


def test_a_volume_that_has_its_place_needs_no_look() -> None:
    plan = decided(None, claimed=None)
    assert not plan.needs_capacity
    assert node_terms(applied(plan, Kind.JOB)) is None


@pytest.mark.parametrize("capacity", [None, Capacity(), Capacity((PLAIN, node("new", 1)))])
def test_a_job_stays_as_it_was_made_whatever_becomes_of_the_nodes(capacity: Capacity | None) -> None:
    made = live(Kind.JOB, applied(decided(Capacity((PLAIN, CARD))), Kind.JOB), {"active": 1})
    plan = decided(capacity, made)
    assert (plan.actions, plan.needs_capacity) == ((), False)


def test_the_next_try_goes_to_the_nodes_of_its_time() -> None:
    made = live(Kind.JOB, applied(decided(Capacity((PLAIN, CARD))), Kind.JOB), failed(HOUR))
    assert decided(None, made).needs_capacity
    again = applied(decided(Capacity((PLAIN, node("new", 1))), made), Kind.JOB)
    assert node_terms(again)["nodeSelectorTerms"][0]["matchExpressions"][0]["values"] == ["new.host"]
