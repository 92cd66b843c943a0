"""The HorizontalPodAutoscaler of an AIService."""

from __future__ import annotations

from kubernetes.aio import client

from aiservice_api.v1alpha1 import AIServiceSpec, Autoscaling, ScalingMetric
from aiservice_operator import names
from aiservice_operator.desired.common import controlled_by, metadata
from aiservice_operator.kinds import RESOURCES, Kind
from aiservice_operator.observed import Meta

IN_FLIGHT = "aiservice_requests_in_flight"
"""Metric of the pods, in the custom metrics API: requests received and not yet answered."""
_CONCURRENCY = 4
_CPU_PERCENT = 80


def autoscaler(owner: Meta, spec: AIServiceSpec, *, scale_down: bool) -> client.V2HorizontalPodAutoscaler | None:
    """Builds the autoscaler of an AIService; None where the number of pods is fixed, or zero for now.

    Args:
        owner: The AIService.
        spec: What it asks for.
        scale_down: Whether pods may be taken away now. Not while one loads: a ReplicaSet would take that one first.
    """
    scaling = spec.autoscaling
    if scaling is None or spec.suspend:
        return None
    return client.V2HorizontalPodAutoscaler(
        metadata=metadata(
            owner.name, owner.namespace, names.service_labels(owner.name), [controlled_by(Kind.AISERVICE, owner)]
        ),
        spec=client.V2HorizontalPodAutoscalerSpec(
            scale_target_ref=client.V2CrossVersionObjectReference(
                api_version=RESOURCES[Kind.DEPLOYMENT].api_version, kind=Kind.DEPLOYMENT.value, name=owner.name
            ),
            min_replicas=scaling.min,
            max_replicas=scaling.max,
            metrics=[_metric(scaling)],
            behavior=client.V2HorizontalPodAutoscalerBehavior(
                scale_down=client.V2HPAScalingRules(select_policy="Max" if scale_down else "Disabled")
            ),
        ),
    )


def _metric(scaling: Autoscaling) -> client.V2MetricSpec:
    if scaling.metric is ScalingMetric.CPU:
        # Of the engine alone: of the whole pod it is not known where a sidecar states no request.
        return client.V2MetricSpec(
            type="ContainerResource",
            container_resource=client.V2ContainerResourceMetricSource(
                name="cpu",
                container=names.ENGINE_CONTAINER,
                target=client.V2MetricTarget(
                    type="Utilization", average_utilization=scaling.target_cpu_utilization or _CPU_PERCENT
                ),
            ),
        )
    return client.V2MetricSpec(
        type="Pods",
        pods=client.V2PodsMetricSource(
            metric=client.V2MetricIdentifier(name=IN_FLIGHT),
            target=client.V2MetricTarget(
                type="AverageValue", average_value=str(scaling.target_concurrency or _CONCURRENCY)
            ),
        ),
    )
