"""What an AIService says about its serving container: compute resources, image, arguments and environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from aiservice_api.v1alpha1.common import (
    ApiModel,
    DataKey,
    DnsLabel,
    DnsSubdomain,
    exactly_one,
    matching,
    rule,
    validations,
)


def _amount_as_text(value: object) -> object:
    """YAML reads `nvidia.com/gpu: 1` as a number; Kubernetes and this project treat amounts as text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _amount_schema(*rules: dict[str, str]) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "description": "A Kubernetes quantity, for example 2, 500m or 8Gi.",
            "maxLength": 32,
            **validations(*rules),
        }
    )


Amount = Annotated[
    str,
    BeforeValidator(_amount_as_text),
    _amount_schema(
        rule(
            "isQuantity(string(self))",
            "write the amount as a Kubernetes quantity, for example cpu: 500m, memory: 8Gi, nvidia.com/gpu: 1",
        ),
        rule(
            "!isQuantity(string(self)) || !quantity(string(self)).isLessThan(quantity('0'))",
            "the amount must not be negative",
        ),
    ),
]
"""A Kubernetes quantity: on the wire a string or a whole number, in Python always a string."""

Memory = Annotated[
    str,
    BeforeValidator(_amount_as_text),
    _amount_schema(
        rule(
            "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('1Mi')) >= 0",
            "write the memory with its unit, for example 512Mi or 24Gi; a number alone would be bytes",
        )
    ),
]
"""A quantity of memory, at least 1Mi: less is a number whose unit was forgotten."""


def _no_entry(bad: str, sentence: str, *, of: str = "self", unless: str = "false") -> dict[str, str]:
    """The rule that no entry of a map of amounts is bad; its message names the first that is.

    Args:
        bad: CEL over the entry's name `n`; true where the entry is bad.
        sentence: What is asked for.
        of: CEL of the map.
        unless: CEL; where it is true nothing is checked.
    """
    return rule(
        f"{unless} || !{of}.exists(n, {bad})",
        sentence,
        message_expression=f"{of}.filter(n, {bad})[0] + ': {sentence}'",
    )


_COMPUTE = "n in ['cpu', 'memory', 'ephemeral-storage']"
DEVICE = "^[a-z0-9.-]+/[A-Za-z0-9._-]+$"
"""Regular expression of a device's resource name."""
_DEVICE = f"n.matches('{DEVICE}')"
_AMOUNT = "string(self[n])"

Amounts = Annotated[
    dict[str, Amount],
    Field(
        max_length=16,
        json_schema_extra=validations(
            _no_entry(
                f"!({_COMPUTE} || n.startsWith('hugepages-') || {_DEVICE})",
                "no such resource; use cpu, memory, ephemeral-storage or a device with its domain, such as "
                "nvidia.com/gpu",
            ),
            _no_entry(
                f"{_DEVICE} && isQuantity({_AMOUNT}) && !quantity({_AMOUNT}).isInteger()",
                "devices are not divided; write a whole number",
            ),
        ),
    ),
]
"""Amounts by the name of a compute resource, as in the resources of a Pod's container."""

_REQUEST, _LIMIT = "string(self.requests[n])", "string(self.limits[n])"
_COMPARED = f"isQuantity({_REQUEST}) && isQuantity({_LIMIT}) && quantity({_REQUEST}).compareTo(quantity({_LIMIT}))"
_LIMIT_BELOW_REQUEST = f"{_COMPUTE} && n in self.limits && {_COMPARED} > 0"
_NOT_THE_LIMIT = f"!({_COMPUTE}) && !(has(self.limits) && n in self.limits && {_COMPARED} == 0)"


class Resources(ApiModel):
    """Compute resources of a container, as in a Pod."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            _no_entry(
                _LIMIT_BELOW_REQUEST,
                "the request is above the limit; raise the limit or lower the request",
                of="self.requests",
                unless="!has(self.requests) || !has(self.limits)",
            ),
            _no_entry(
                _NOT_THE_LIMIT,
                "devices are asked for under limits; state the same amount there, or leave requests out",
                of="self.requests",
                unless="!has(self.requests)",
            ),
        )
    )

    requests: Annotated[Amounts, Field(description="What the scheduler reserves, for example memory: 8Gi.")] = {}
    limits: Annotated[
        Amounts, Field(description="What the container may use at most, for example nvidia.com/gpu: 1.")
    ] = {}


class KeyRef(ApiModel):
    """One key of a Secret or ConfigMap in the same namespace."""

    name: Annotated[DnsSubdomain, Field(description="Name of the object, in the namespace of the AIService.")]
    key: Annotated[DataKey, Field(description="Key that holds the value.")]


class EnvVarSource(ApiModel):
    """Where the value of a variable comes from. Exactly one."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            exactly_one("secretKeyRef", "configMapKeyRef", of="secretKeyRef and configMapKeyRef")
        )
    )

    secret_key_ref: Annotated[KeyRef | None, Field(description="A key of a Secret.")] = None
    config_map_key_ref: Annotated[KeyRef | None, Field(description="A key of a ConfigMap.")] = None


class EnvVar(ApiModel):
    """One environment variable of a container."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule("!(has(self.value) && has(self.valueFrom))", "set value or valueFrom, not both"),
            rule(
                "!self.name.startsWith('AISERVICE_')",
                "names that start with AISERVICE_ are set by the operator: use the field of the AIService, "
                "or engine.args, instead",
                message_expression=(
                    "self.name + ' is set by the operator, as is every name that starts with AISERVICE_: "
                    "use the field of the AIService, or engine.args, instead'"
                ),
            ),
        )
    )

    name: Annotated[
        str,
        Field(
            description="Name of the variable.",
            max_length=128,
            json_schema_extra=matching(
                "^[A-Za-z_][A-Za-z0-9_.-]*$",
                "write a name of letters, digits, underscores, dots and dashes that does not start with a digit, for "
                "example LOG_LEVEL",
            ),
        ),
    ]
    value: Annotated[
        str | None,
        Field(
            description="The value itself. Secrets do not belong here: take them from a Secret with valueFrom.",
            max_length=4096,
        ),
    ] = None
    value_from: Annotated[EnvVarSource | None, Field(description="Take the value from a Secret or ConfigMap.")] = None


HttpPath = Annotated[
    str,
    Field(
        max_length=256,
        json_schema_extra=matching(
            "^/[^?#[:space:]]*$", "write a path that starts with / and has no blank, ? or #, for example /ready"
        ),
    ),
]

Image = Annotated[
    str,
    Field(
        max_length=512,
        json_schema_extra=validations(
            rule(
                "self != '' && !self.contains('://') && !self.matches('[[:space:]]')",
                "write the image as REGISTRY/NAME:TAG or REGISTRY/NAME@DIGEST, without https:// and blanks",
            )
        ),
    ),
]
"""A container image, as in a Pod."""


class EngineSpec(ApiModel):
    """The server that runs in the pods."""

    image: Annotated[
        Image | None,
        Field(
            description="Container image of the engine. Unset: the operator's image for the tasks. Your own image must "
            "serve each task's port as docs/inference.md says."
        ),
    ] = None
    command: Annotated[
        list[Annotated[str, Field(max_length=1024)]],
        Field(description="What runs instead of the image's entry point.", max_length=64),
    ] = []
    args: Annotated[
        list[Annotated[str, Field(max_length=1024)]],
        Field(description="Arguments added to the engine's command line.", max_length=64),
    ] = []
    env: Annotated[
        list[EnvVar],
        Field(
            description="Environment variables added to the container.",
            max_length=64,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    ready_path: Annotated[
        HttpPath, Field(description="Path that answers 200 once requests can be served, on the first task's port.")
    ] = "/ready"
    health_path: Annotated[
        HttpPath, Field(description="Path that answers 200 while the server works; else the container is restarted.")
    ] = "/health"


class GpuSpec(ApiModel):
    """GPUs of a pod, by the resource name under which the device plugin offers them."""

    resource: Annotated[
        str,
        Field(
            description="Resource that the device plugin offers: nvidia.com/gpu for whole GPUs, nvidia.com/gpu.shared "
            "for time-slicing and MPS, nvidia.com/mig-3g.20gb and the like for parts.",
            max_length=253,
            json_schema_extra=validations(
                rule(
                    f"self.matches('{DEVICE}')",
                    "write the resource with its domain, such as nvidia.com/gpu, nvidia.com/gpu.shared or "
                    "nvidia.com/mig-1g.10gb",
                )
            ),
        ),
    ] = "nvidia.com/gpu"
    count: Annotated[int, Field(description="How many a pod gets.", ge=1, le=16)] = 1
    memory: Annotated[
        Memory | None,
        Field(
            description="Memory of one of them, for example 24Gi, to compare with what the model needs. Unset: as the "
            "name of a MIG resource says, else not compared."
        ),
    ] = None


class DeviceClaim(ApiModel):
    """A device from dynamic resource allocation, by a claim or by the template of one. Exactly one of the two."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            exactly_one(
                "resourceClaimName",
                "resourceClaimTemplateName",
                of="resourceClaimName and resourceClaimTemplateName",
            )
        )
    )

    name: Annotated[DnsLabel, Field(description="Name of the claim within the pod.")]
    resource_claim_name: Annotated[DnsSubdomain | None, Field(description="A ResourceClaim that all pods share.")] = (
        None
    )
    resource_claim_template_name: Annotated[
        DnsSubdomain | None, Field(description="A ResourceClaimTemplate from which each pod gets a claim.")
    ] = None
