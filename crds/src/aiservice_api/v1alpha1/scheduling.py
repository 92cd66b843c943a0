"""Where pods may run: tolerations, affinity and spread, field by field as in a Pod."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from aiservice_api.v1alpha1.common import ApiModel, rule, validations

LabelKey = Annotated[str, Field(min_length=1, max_length=316)]
LabelValue = Annotated[str, Field(max_length=63)]
Labels = Annotated[dict[str, LabelValue], Field(max_length=32)]
TopologyKey = Annotated[
    str,
    Field(
        description="Node label that tells places apart, for example kubernetes.io/hostname.",
        min_length=1,
        max_length=316,
    ),
]


class Toleration(ApiModel):
    """A taint that pods tolerate."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "!has(self.operator) || self.operator != 'Exists' || !has(self.value)",
                "a toleration with operator Exists has no value: remove value, or set operator to Equal",
            ),
            rule(
                "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
                "a toleration without key needs operator Exists; it then tolerates every taint",
            ),
        )
    )

    key: Annotated[LabelKey | None, Field(description="Key of the taint. Unset: every key.")] = None
    operator: Annotated[
        Literal["Exists", "Equal"] | None, Field(description="How value is compared. Unset: Equal.")
    ] = None
    value: Annotated[LabelValue | None, Field(description="Value of the taint.")] = None
    effect: Annotated[
        Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None,
        Field(description="Effect of the taint. Unset: every effect."),
    ] = None
    toleration_seconds: Annotated[
        int | None, Field(description="How long a NoExecute taint is tolerated. Unset: for ever.", ge=0)
    ] = None


class NodeSelectorRequirement(ApiModel):
    """One condition on the labels or fields of a node."""

    key: Annotated[LabelKey, Field(description="The label.")]
    operator: Annotated[
        Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"], Field(description="How values are compared.")
    ]
    values: Annotated[list[LabelValue], Field(description="Values, where the operator takes some.", max_length=64)] = []


Requirements = Annotated[list[NodeSelectorRequirement], Field(max_length=16)]


class NodeSelectorTerm(ApiModel):
    """Conditions that a node meets together."""

    match_expressions: Annotated[Requirements, Field(description="Conditions on labels.")] = []
    match_fields: Annotated[Requirements, Field(description="Conditions on fields, such as metadata.name.")] = []


class NodeSelector(ApiModel):
    """Terms of which a node meets at least one."""

    node_selector_terms: Annotated[list[NodeSelectorTerm], Field(description="The terms.", min_length=1, max_length=16)]


class PreferredNodes(ApiModel):
    """Nodes that are preferred."""

    weight: Annotated[int, Field(description="How much.", ge=1, le=100)]
    preference: Annotated[NodeSelectorTerm, Field(description="Which.")]


class NodeAffinity(ApiModel):
    """Nodes that pods need or prefer."""

    required_during_scheduling_ignored_during_execution: Annotated[
        NodeSelector | None, Field(description="Nodes that may be used.")
    ] = None
    preferred_during_scheduling_ignored_during_execution: Annotated[
        list[PreferredNodes], Field(description="Nodes that are preferred.", max_length=16)
    ] = []


class LabelSelectorRequirement(ApiModel):
    """One condition on labels."""

    key: Annotated[LabelKey, Field(description="The label.")]
    operator: Annotated[Literal["In", "NotIn", "Exists", "DoesNotExist"], Field(description="How values are compared.")]
    values: Annotated[list[LabelValue], Field(description="Values, where the operator takes some.", max_length=64)] = []


class LabelSelector(ApiModel):
    """Objects by their labels; empty: all."""

    match_labels: Annotated[Labels, Field(description="Labels that an object has.")] = {}
    match_expressions: Annotated[
        list[LabelSelectorRequirement], Field(description="Conditions on labels.", max_length=16)
    ] = []


class PodAffinityTerm(ApiModel):
    """Pods, and the places that they make attractive or not."""

    label_selector: Annotated[LabelSelector | None, Field(description="Which pods.")] = None
    namespace_selector: Annotated[
        LabelSelector | None, Field(description="In which namespaces. Unset: in this one.")
    ] = None
    namespaces: Annotated[
        list[Annotated[str, Field(max_length=63)]], Field(description="In these namespaces, too.", max_length=32)
    ] = []
    topology_key: TopologyKey


class WeightedPodAffinityTerm(ApiModel):
    """A preference for or against the places of some pods."""

    weight: Annotated[int, Field(description="How much.", ge=1, le=100)]
    pod_affinity_term: Annotated[PodAffinityTerm, Field(description="Which pods.")]


class PodAffinity(ApiModel):
    """Pods to be near to, or away from."""

    required_during_scheduling_ignored_during_execution: Annotated[
        list[PodAffinityTerm], Field(description="What must be so.", max_length=16)
    ] = []
    preferred_during_scheduling_ignored_during_execution: Annotated[
        list[WeightedPodAffinityTerm], Field(description="What is preferred.", max_length=16)
    ] = []


class Affinity(ApiModel):
    """Where pods need or prefer to run, by nodes and by other pods."""

    node_affinity: Annotated[NodeAffinity | None, Field(description="By nodes.")] = None
    pod_affinity: Annotated[PodAffinity | None, Field(description="Near to other pods.")] = None
    pod_anti_affinity: Annotated[PodAffinity | None, Field(description="Away from other pods.")] = None


class TopologySpreadConstraint(ApiModel):
    """How evenly the pods of the service are spread over places; the operator adds the selector of its pods."""

    max_skew: Annotated[int, Field(description="How far the numbers of pods may differ.", ge=1, le=1000)] = 1
    topology_key: TopologyKey
    when_unsatisfiable: Annotated[
        Literal["DoNotSchedule", "ScheduleAnyway"],
        Field(description="Whether a pod that would break it waits, or goes where it breaks it least."),
    ]
