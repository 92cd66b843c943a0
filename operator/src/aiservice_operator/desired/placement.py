"""On which nodes serving pods may and must run."""

from __future__ import annotations

from collections.abc import Sequence

from kubernetes.aio import client

from aiservice_api.v1alpha1 import PodOverrides, TopologySpreadConstraint
from aiservice_operator import names
from aiservice_operator.desired.common import as_in_a_pod
from aiservice_operator.desired.container import Mount
from aiservice_operator.settings import Profile

_NODE = "kubernetes.io/hostname"


def node_selector(profile: Profile, pod: PodOverrides) -> dict[str, str] | None:
    """Builds the node labels that pods need; None where they need none."""
    return {**profile.node_selector, **pod.node_selector} or None


def affinity(pod: PodOverrides, mount: Mount) -> client.V1Affinity | None:
    """Builds the spec's affinity, and with it the need to be where the volume is, if that is mounted on one node only.

    The first pod of a cache finds no other, and its own label counts: the scheduler lets it choose the node.
    """
    built = as_in_a_pod(client.V1Affinity, pod.affinity) if pod.affinity is not None else None
    if not mount.one_node:
        return built
    built = built or client.V1Affinity()
    near = built.pod_affinity or client.V1PodAffinity()
    where_the_volume_is = client.V1PodAffinityTerm(
        label_selector=client.V1LabelSelector(match_labels={names.CACHE_LABEL: mount.cache}), topology_key=_NODE
    )
    near.required_during_scheduling_ignored_during_execution = [
        *(near.required_during_scheduling_ignored_during_execution or []),
        where_the_volume_is,
    ]
    built.pod_affinity = near
    return built


def spread(owner: str, wanted: Sequence[TopologySpreadConstraint]) -> list[client.V1TopologySpreadConstraint] | None:
    """Builds the constraints on how the pods of this service are spread; None where there are none."""
    return [
        client.V1TopologySpreadConstraint(
            max_skew=constraint.max_skew,
            topology_key=constraint.topology_key,
            when_unsatisfiable=constraint.when_unsatisfiable,
            label_selector=client.V1LabelSelector(match_labels=names.workload_selector(owner)),
        )
        for constraint in wanted
    ] or None
