"""Where pods may run: tolerations, affinity and spread, field by field as in a Pod.

The rules are those of the API server for Pods, so that a mistake is refused where it was written, and not later where
the Deployment is made.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from aiservice_api.v1alpha1.common import ApiModel, DnsLabel, DnsSubdomain, matching, rule, validations

_KEY = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"

LabelKey = Annotated[
    str,
    Field(
        max_length=316,
        json_schema_extra=matching(
            _KEY,
            "write the key of a label, with or without a domain before a slash, for example kubernetes.io/hostname",
        ),
    ),
]
LabelValue = Annotated[
    str,
    Field(
        max_length=63,
        json_schema_extra=matching(
            "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
            "write the value of a label: letters, digits, dashes, underscores and dots, with a letter or digit at both "
            "ends",
        ),
    ),
]
KEYS = rule(
    f"self.all(k, k.matches('{_KEY}'))",
    "a key is not one that Kubernetes takes: write up to 63 letters, digits, dashes, underscores and dots, with or "
    "without a domain before a slash, for example example.com/team",
)
"""The rule of a map whose keys are those of labels or annotations."""

Labels = Annotated[dict[str, LabelValue], Field(max_length=32, json_schema_extra=validations(KEYS))]
TopologyKey = Annotated[
    LabelKey, Field(description="Node label that tells places apart, for example kubernetes.io/hostname.")
]


def _values_fit(*, one_number: bool = False) -> tuple[dict[str, str], ...]:
    """The rules that the values of a requirement are those that its operator takes.

    Args:
        one_number: Whether there are the operators Gt and Lt.
    """
    fit = (
        rule(
            "!(self.operator in ['In', 'NotIn']) || self.?values.orValue([]).size() > 0",
            "the operators In and NotIn compare with values: add values",
        ),
        rule(
            "!(self.operator in ['Exists', 'DoesNotExist']) || self.?values.orValue([]).size() == 0",
            "the operators Exists and DoesNotExist take no values: remove values",
        ),
    )
    number = rule(
        "!(self.operator in ['Gt', 'Lt']) || (has(self.values) && self.values.size() == 1 "
        "&& self.values.all(v, v.matches('^[0-9]+$')))",
        "the operators Gt and Lt compare with one whole number: write it as the only one of values",
    )
    return (*fit, number) if one_number else fit


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
            rule(
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                "tolerationSeconds is for effect NoExecute: set effect to NoExecute, or remove tolerationSeconds",
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
    """One condition on the labels of a node."""

    model_config = ConfigDict(json_schema_extra=validations(*_values_fit(one_number=True)))

    key: Annotated[LabelKey, Field(description="The label.")]
    operator: Annotated[
        Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"], Field(description="How values are compared.")
    ]
    values: Annotated[list[LabelValue], Field(description="Values, where the operator takes some.", max_length=64)] = []


class NodeFieldRequirement(ApiModel):
    """One condition on a field of a node."""

    key: Annotated[Literal["metadata.name"], Field(description="The field; Kubernetes knows this one.")]
    operator: Annotated[Literal["In", "NotIn"], Field(description="How the value is compared.")]
    values: Annotated[list[DnsSubdomain], Field(description="The name of one node.", min_length=1, max_length=1)]


class NodeSelectorTerm(ApiModel):
    """Conditions that a node meets together."""

    match_expressions: Annotated[
        list[NodeSelectorRequirement], Field(description="Conditions on labels.", max_length=16)
    ] = []
    match_fields: Annotated[
        list[NodeFieldRequirement], Field(description="Conditions on the node's name.", max_length=16)
    ] = []


class NodeSelector(ApiModel):
    """Terms of which a node meets at least one."""

    node_selector_terms: Annotated[
        list[NodeSelectorTerm],
        Field(
            description="The terms.",
            min_length=1,
            max_length=16,
            json_schema_extra=validations(
                rule(
                    "self.all(t, t.?matchExpressions.orValue([]).size() > 0 || t.?matchFields.orValue([]).size() > 0)",
                    "a term without conditions matches no node: add matchExpressions or matchFields, or remove it",
                )
            ),
        ),
    ]


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

    model_config = ConfigDict(json_schema_extra=validations(*_values_fit()))

    key: Annotated[LabelKey, Field(description="The label.")]
    operator: Annotated[Literal["In", "NotIn", "Exists", "DoesNotExist"], Field(description="How values are compared.")]
    values: Annotated[list[LabelValue], Field(description="Values, where the operator takes some.", max_length=32)] = []


class LabelSelector(ApiModel):
    """Objects by their labels; empty: all."""

    match_labels: Annotated[Labels, Field(description="Labels that an object has.")] = {}
    match_expressions: Annotated[
        list[LabelSelectorRequirement], Field(description="Conditions on labels.", max_length=8)
    ] = []


class PodAffinityTerm(ApiModel):
    """Pods, and the places that they make attractive or not."""

    label_selector: Annotated[LabelSelector | None, Field(description="Which pods.")] = None
    namespace_selector: Annotated[
        LabelSelector | None, Field(description="In which namespaces. Unset: in this one.")
    ] = None
    namespaces: Annotated[list[DnsLabel], Field(description="In these namespaces, too.", max_length=32)] = []
    topology_key: TopologyKey


class WeightedPodAffinityTerm(ApiModel):
    """A preference for or against the places of some pods."""

    weight: Annotated[int, Field(description="How much.", ge=1, le=100)]
    pod_affinity_term: Annotated[PodAffinityTerm, Field(description="Which pods.")]


class PodAffinity(ApiModel):
    """Pods to be near to, or away from."""

    required_during_scheduling_ignored_during_execution: Annotated[
        list[PodAffinityTerm], Field(description="What must be so.", max_length=8)
    ] = []
    preferred_during_scheduling_ignored_during_execution: Annotated[
        list[WeightedPodAffinityTerm], Field(description="What is preferred.", max_length=8)
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
