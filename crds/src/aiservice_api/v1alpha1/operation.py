"""How an AIService is kept running: scaling, rollouts, disruptions, and who may reach it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from aiservice_api.v1alpha1.common import ApiModel, exactly_one, rule, validations
from aiservice_api.v1alpha1.scheduling import LabelSelector


class ScalingMetric(StrEnum):
    """What the number of pods follows."""

    CONCURRENCY = "Concurrency"
    CPU = "CPU"


class Autoscaling(ApiModel):
    """Between how many pods the service is scaled, and by what."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "self.min <= self.max",
                "autoscaling.max is below autoscaling.min: raise max or lower min",
            ),
            rule(
                "self.metric == 'CPU' || !has(self.targetCpuUtilization)",
                "targetCpuUtilization is for metric CPU: remove it, or set metric to CPU",
            ),
            rule(
                "self.metric == 'Concurrency' || !has(self.targetConcurrency)",
                "targetConcurrency is for metric Concurrency: remove it, or set metric to Concurrency",
            ),
        )
    )

    min: Annotated[int, Field(description="Pods at the least. To run none, set suspend.", ge=1, le=1000)] = 1
    max: Annotated[int, Field(description="Pods at the most.", ge=1, le=1000)]
    metric: Annotated[
        ScalingMetric,
        Field(
            description="Concurrency: requests in flight a pod, which needs the custom metrics API (docs/install.md "
            "says how). CPU: CPU use, of little meaning on a GPU, which needs metrics-server."
        ),
    ] = ScalingMetric.CONCURRENCY
    target_concurrency: Annotated[
        int | None,
        Field(description="Requests in flight that a pod should have. Unset: 4.", ge=1, le=1000),
    ] = None
    target_cpu_utilization: Annotated[
        int | None,
        Field(description="CPU use that a pod should have, in percent of its request. Unset: 80.", ge=1, le=100),
    ] = None


class Surge(StrEnum):
    """Whether a rollout starts a new pod before it stops an old one."""

    AUTO = "Auto"
    ALWAYS = "Always"
    NEVER = "Never"


class Rollout(ApiModel):
    """How pods are replaced when the spec changes."""

    surge: Annotated[
        Surge,
        Field(
            description="Whether a new pod starts before an old one stops. Auto: on a CPU always; on a GPU where a "
            "free one of that kind was seen when the rollout began, since a pod that waits for the GPU of the pod that "
            "it is to replace waits for ever. No old pod stops for a new one that could run nowhere. status.rollout "
            "says what was decided."
        ),
    ] = Surge.AUTO
    start_seconds: Annotated[
        int, Field(description="How long a pod may take to load its model and warm up.", ge=30, le=86400)
    ] = 1800
    drain_seconds: Annotated[
        int, Field(description="How long a pod that is told to stop may take to finish its requests.", ge=1, le=3600)
    ] = 30


def _count_or_percent(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


CountOrPercent = Annotated[
    str,
    BeforeValidator(_count_or_percent),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "description": "A number of pods, or a share such as 25%.",
            "maxLength": 8,
            **validations(
                rule(
                    "string(self).matches('^([0-9]{1,4}|[0-9]{1,2}%|100%)$')",
                    "write a number of pods such as 1, or a share of at most 100%, such as 25%",
                )
            ),
        }
    ),
]
"""On the wire a whole number or a percentage, in Python always a string."""


class Disruption(ApiModel):
    """How many pods may be stopped at once by drains of nodes and the like. Exactly one of the two."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            exactly_one("maxUnavailable", "minAvailable", of="maxUnavailable and minAvailable")
        )
    )

    max_unavailable: Annotated[
        CountOrPercent | None, Field(description="Pods that may be missing, for example 1 or 25%.")
    ] = None
    min_available: Annotated[
        CountOrPercent | None,
        Field(
            description="Pods that must stay, for example 1 or 50%. Where that is all of them, no node that runs one "
            "can be drained; the condition Disruptable says so."
        ),
    ] = None


class Peer(ApiModel):
    """Pods that may connect."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "has(self.namespaceSelector) || has(self.podSelector)",
                "say who may connect: set podSelector, namespaceSelector or both",
            )
        )
    )

    namespace_selector: Annotated[LabelSelector | None, Field(description="Their namespaces. Unset: this one.")] = None
    pod_selector: Annotated[LabelSelector | None, Field(description="The pods. Unset: all of those namespaces.")] = None


class Network(ApiModel):
    """Who may reach the pods."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "self.restrict || !has(self.allowFrom)",
                "without restrict everybody may connect: remove network.allowFrom, or set network.restrict to true",
            )
        )
    )

    restrict: Annotated[
        bool,
        Field(
            description="Whether a NetworkPolicy lets only the gateway, Prometheus, the operator and the pods in "
            "allowFrom connect. It needs a network plugin that enforces NetworkPolicies."
        ),
    ] = True
    allow_from: Annotated[list[Peer], Field(description="Others that may connect.", max_length=16)] = []
