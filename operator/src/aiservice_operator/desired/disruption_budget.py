"""The PodDisruptionBudget of an AIService: how many of its pods drains of nodes may stop at once."""

from __future__ import annotations

from kubernetes.aio import client

from aiservice_api.v1alpha1 import AIServiceSpec, Disruption
from aiservice_operator import names
from aiservice_operator.desired.common import controlled_by, metadata
from aiservice_operator.kinds import Kind
from aiservice_operator.observed import Meta


def disruption_budget(owner: Meta, spec: AIServiceSpec, *, one_node: bool) -> client.V1PodDisruptionBudget | None:
    """Builds the budget of an AIService; None where no pod is wanted, so that none is missing.

    Unless the spec says otherwise one pod at a time may be stopped, which blocks no drain, of a single replica neither.
    Where all pods have to be on one node, all may: a drain of it stops them in any case, and one that is stopped has no
    other place before the last is gone, so that the next could never be stopped.

    Args:
        owner: The AIService.
        spec: What it asks for.
        one_node: Whether its pods run on one node, where their model's volume is.
    """
    if spec.suspend or spec.replicas == 0:
        return None
    allowed = spec.disruption or Disruption(max_unavailable="100%" if one_node else "1")
    return client.V1PodDisruptionBudget(
        metadata=metadata(
            owner.name, owner.namespace, names.service_labels(owner.name), [controlled_by(Kind.AISERVICE, owner)]
        ),
        spec=client.V1PodDisruptionBudgetSpec(
            selector=client.V1LabelSelector(match_labels=names.workload_selector(owner.name)),
            max_unavailable=_amount(allowed.max_unavailable),
            min_available=_amount(allowed.min_available),
            # A pod that does not serve is no loss, and one that crashes would block the drain for ever.
            unhealthy_pod_eviction_policy="AlwaysAllow",
        ),
    )


def _amount(stated: str | None) -> int | str | None:
    return int(stated) if stated is not None and stated.isdigit() else stated
