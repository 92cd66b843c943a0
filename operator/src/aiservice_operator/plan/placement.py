"""Where the Jobs of a ModelCache run: where a volume is one that all its users' pods can mount."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kubernetes.aio.client import V1NodeSelectorRequirement, V1NodeSelectorTerm

from aiservice_api.v1alpha1 import ModelCacheSpec, PodOverrides, Storage
from aiservice_operator import names
from aiservice_operator.capacity import Node, allows
from aiservice_operator.desired.common import as_in_a_pod, body_of, tolerations
from aiservice_operator.desired.job import HOST, Placement
from aiservice_operator.hardware import Gpu, Hardware, allocate
from aiservice_operator.kinds import Json
from aiservice_operator.observed import Service
from aiservice_operator.settings import Profile, Settings, Toleration

_MOST_TERMS = 64
"""Alternatives that users' node affinities may have together."""
_MOST_HOSTS = 64
"""Nodes that a Job names at most."""
_WAY_OUT = (
    "but a ReadWriteOnce volume can be on one node only: use a StorageClass with storage.accessMode ReadWriteMany, or "
    "give one of them a cache of its own"
)


@dataclass(frozen=True, slots=True)
class _Wish:
    """Where the pods of one AIService go."""

    service: str
    selector: dict[str, str]
    tolerations: list[Toleration]
    terms: list[V1NodeSelectorTerm] = field(default_factory=list)
    gpu: Gpu | None = None


def place(users: Sequence[Service], spec: ModelCacheSpec, settings: Settings) -> Placement | str:
    """Returns where a volume is one that all users' pods can mount, or why there is no such place.

    A volume that many nodes can mount has no place: pods only have to be let onto the nodes of the users.
    """
    wishes = [wish for user in users if (wish := _wish(user, settings)) is not None]
    if (spec.storage or Storage()).access_mode == "ReadWriteMany":
        return Placement(tolerations=_all_of(wishes))
    selector = _selector(wishes)
    if isinstance(selector, str):
        return selector
    terms = _terms(wishes, selector)
    if isinstance(terms, str):
        return terms
    return Placement(selector, _shared(wishes), terms, _devices(wishes), one_node=True)


def hosts_with_devices(placement: Placement, nodes: Sequence[Node]) -> tuple[str, ...]:
    """Returns the host names of the nodes that have the users' GPUs; none where every node has them that is chosen.

    A download holds no GPU, so that nothing else keeps its pod, and with it the volume, from nodes without one. Where
    no node has them none is named either: an autoscaler of the cluster may add some, and knows no names of theirs.
    """
    if not placement.devices:
        return ()
    pod = _pod_of(placement)
    chosen = [node for node in nodes if HOST in node.labels and allows(pod, node)]
    fitting = [node for node in chosen if _has(node, placement.devices)]
    if len(fitting) == len(chosen):
        return ()
    best_first = sorted(fitting, key=lambda node: (not node.usable, node.name))
    return tuple(node.labels[HOST] for node in best_first[:_MOST_HOSTS])


def _has(node: Node, devices: Mapping[str, int]) -> bool:
    return all(node.offers.get(resource, 0) >= count for resource, count in devices.items())


def _pod_of(placement: Placement) -> Json:
    """What of a placement nodes are chosen by, as in the spec of a pod."""
    terms = [body_of(term) for term in placement.node_terms]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {
        "nodeSelector": placement.node_selector,
        "tolerations": [body_of(item) for item in tolerations(placement.tolerations) or ()],
        "affinity": {"nodeAffinity": required} if terms else {},
    }


def _devices(wishes: Sequence[_Wish]) -> dict[str, int]:
    found: dict[str, int] = {}
    for gpu in (wish.gpu for wish in wishes if wish.gpu is not None):
        found[gpu.resource] = max(gpu.count, found.get(gpu.resource, 0))
    return found


def beside(users: Sequence[Service], settings: Settings) -> Placement:
    """Returns where a bound volume is: the scheduler knows, or finds the pods that mount it; no user has a say."""
    wishes = [wish for user in users if (wish := _wish(user, settings)) is not None]
    return Placement(tolerations=_all_of(wishes), one_node=True)


def _wish(user: Service, settings: Settings) -> _Wish | None:
    """None for one that runs nowhere, because its spec is not accepted."""
    if user.spec is None or (user.spec.profile is not None and user.spec.profile not in settings.profiles):
        return None
    profile = settings.profiles[user.spec.profile] if user.spec.profile is not None else Profile()
    pod = user.spec.pod or PodOverrides()
    added = [Toleration.model_validate(item.model_dump()) for item in pod.tolerations]
    affinity = pod.affinity.node_affinity if pod.affinity is not None else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity is not None else None
    hardware = allocate(user.spec, profile)
    return _Wish(
        service=user.meta.name,
        selector={**profile.node_selector, **pod.node_selector},
        tolerations=[*profile.tolerations, *added],
        terms=[
            as_in_a_pod(V1NodeSelectorTerm, term)
            for term in (required.node_selector_terms if required is not None else ())
        ],
        gpu=hardware.gpu if isinstance(hardware, Hardware) else None,
    )


def _all_of(wishes: Sequence[_Wish]) -> list[Toleration]:
    found: list[Toleration] = []
    for wish in wishes:
        found += [item for item in wish.tolerations if item not in found]
    return found


def _shared(wishes: Sequence[_Wish]) -> list[Toleration]:
    """What every user tolerates: a volume on a node whose taint keeps one of them away would be of no use to it."""
    return [item for item in _all_of(wishes) if all(_tolerates(wish.tolerations, item) for wish in wishes)]


def _tolerates(tolerations: Sequence[Toleration], other: Toleration) -> bool:
    """Whether taints that `other` lets pass are let pass by one of these."""
    return any(
        (one.key is None or one.key == other.key)
        and (one.operator == "Exists" or (other.operator != "Exists" and (one.value or "") == (other.value or "")))
        and one.effect in (None, other.effect)
        for one in tolerations
    )


def _selector(wishes: Sequence[_Wish]) -> dict[str, str] | str:
    selector: dict[str, str] = {}
    chosen_by: dict[str, str] = {}
    for wish in wishes:
        for label, value in wish.selector.items():
            if selector.setdefault(label, value) != value:
                return (
                    f"AIService {chosen_by[label]} runs on nodes with {label}={selector[label]} and AIService "
                    f"{wish.service} on nodes with {label}={value}, {_WAY_OUT}"
                )
            chosen_by.setdefault(label, wish.service)
    return selector


def _terms(wishes: Sequence[_Wish], selector: dict[str, str]) -> list[V1NodeSelectorTerm] | str:
    """Every combination of the users' alternatives that a node can meet."""
    combined: list[V1NodeSelectorTerm] = []
    named: list[str] = []
    known: list[list[V1NodeSelectorTerm]] = []
    for wish in wishes:
        if not wish.terms or wish.terms in known:
            continue
        known.append(wish.terms)
        named.append(wish.service)
        pairs = [(one, other) for one in combined or [V1NodeSelectorTerm()] for other in wish.terms if _selects(other)]
        combined = [term for one, other in pairs if _possible(term := _both(one, other), selector)]
        services = names.listed(dict.fromkeys([*named, *(other.service for other in wishes if other.selector)]))
        if not combined:
            return f"no node meets the node selectors and affinities of AIService {services} together, {_WAY_OUT}"
        if len(combined) > _MOST_TERMS:
            return (
                f"the node affinities of AIService {names.listed(named)} have more than {_MOST_TERMS} alternatives "
                f"together: state fewer nodeSelectorTerms, or use a StorageClass with storage.accessMode ReadWriteMany"
            )
    return combined


def _selects(term: V1NodeSelectorTerm) -> bool:
    """Kubernetes takes a term without conditions as one that no node meets."""
    return bool(term.match_expressions or term.match_fields)


def _both(one: V1NodeSelectorTerm, other: V1NodeSelectorTerm) -> V1NodeSelectorTerm:
    """The term that a node meets when it meets both."""
    return V1NodeSelectorTerm(
        match_expressions=_joined(one.match_expressions, other.match_expressions) or None,
        match_fields=_joined(one.match_fields, other.match_fields) or None,
    )


def _joined(
    one: list[V1NodeSelectorRequirement] | None, other: list[V1NodeSelectorRequirement] | None
) -> list[V1NodeSelectorRequirement]:
    known = one or []
    return [*known, *(item for item in other or [] if item not in known)]


def _possible(term: V1NodeSelectorTerm, selector: dict[str, str]) -> bool:
    """Whether there may be a node that meets a term and a selector; what numbers are compared with is not looked at."""
    stated = [V1NodeSelectorRequirement(key=key, operator="In", values=[value]) for key, value in selector.items()]
    labels, fields = [*(term.match_expressions or []), *stated], term.match_fields or []
    return all(map(_satisfiable, [*_by_key(labels), *_by_key(fields)]))


def _by_key(requirements: Sequence[V1NodeSelectorRequirement]) -> Iterator[list[V1NodeSelectorRequirement]]:
    for key in dict.fromkeys(item.key for item in requirements):
        yield [item for item in requirements if item.key == key]


def _satisfiable(requirements: Sequence[V1NodeSelectorRequirement]) -> bool:
    """Whether one label can meet all of these."""
    operators = {item.operator for item in requirements}
    if "DoesNotExist" in operators and operators & {"In", "Exists", "Gt", "Lt"}:
        return False
    allowed = [set(item.values or ()) for item in requirements if item.operator == "In"]
    if not allowed:
        return True
    refused = {value for item in requirements if item.operator == "NotIn" for value in item.values or ()}
    return bool(set.intersection(*allowed) - refused)
