"""Puts a CustomResourceDefinition around the schema of a kind: names, printer columns, subresources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiservice_api.generate.structural import Schema, structural_schema, without_defaults
from aiservice_api.v1alpha1 import GROUP, VERSION, AIService, AITenant, ModelCache
from aiservice_api.v1alpha1.common import ApiModel

Json = dict[str, Any]

OPAQUE = ("apiVersion", "kind", "metadata")
"""Fields of every object that the API server itself defines."""


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`.

    Attributes:
        name: Heading.
        path: JSONPath of the value.
        type: `string`, `integer`, `boolean` or `date`.
        wide: Whether only `-o wide` shows it.
    """

    name: str
    path: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True)
class Scale:
    """Where the `scale` subresource finds the number of pods and their label selector (JSONPath)."""

    spec_replicas: str
    status_replicas: str
    selector: str


@dataclass(frozen=True)
class Kind:
    """What a CRD says about a kind besides its schema."""

    model: type[ApiModel]
    plural: str
    short_name: str
    columns: tuple[Column, ...]
    scale: Scale | None = None

    @property
    def name(self) -> str:
        """The kind as objects state it, for example AIService."""
        return self.model.__name__

    @property
    def crd_name(self) -> str:
        """Name of the CustomResourceDefinition, for example aiservices.aiservice.dev."""
        return f"{self.plural}.{GROUP}"


def _condition(condition_type: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{condition_type}")].{field}'


_READY = (Column("Ready", _condition("Ready", "status")), Column("Reason", _condition("Ready", "reason")))
_AGE = Column("Age", ".metadata.creationTimestamp", type="date")

KINDS = (
    Kind(
        model=AIService,
        plural="aiservices",
        short_name="ais",
        columns=(
            Column("Tasks", ".spec.tasks"),
            *_READY,
            Column("Replicas", ".status.replicas", type="integer"),
            Column("Serving", ".status.readyReplicas", type="integer", wide=True),
            Column("Model", ".status.model"),
            Column("Cache", ".status.modelCache", wide=True),
            Column("URL", ".status.url", wide=True),
            _AGE,
        ),
        scale=Scale(".spec.replicas", ".status.replicas", ".status.selector"),
    ),
    Kind(
        model=ModelCache,
        plural="modelcaches",
        short_name="mc",
        columns=(
            *_READY,
            Column("Source", ".status.source"),
            Column("Progress", ".status.download.progress"),
            Column("Revision", ".status.revision", wide=True),
            Column("Claim", ".status.claimName", wide=True),
            _AGE,
        ),
    ),
    Kind(
        model=AITenant,
        plural="aitenants",
        short_name="ait",
        columns=(
            Column("Tenant", ".spec.tenant"),
            Column("Suspended", ".spec.suspend", type="boolean"),
            Column("Accepted", _condition("Accepted", "status")),
            Column("Reason", _condition("Accepted", "reason")),
            _AGE,
        ),
    ),
)


def definition(kind: Kind) -> Json:
    """The CustomResourceDefinition of a kind, as it is applied."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short_name],
                "categories": ["all", "ai"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": object_schema(kind.model)},
                    "subresources": _subresources(kind),
                    "additionalPrinterColumns": [_printer_column(column) for column in kind.columns],
                }
            ],
        },
    }


def object_schema(model: type[ApiModel]) -> Schema:
    """The schema of a whole object: its spec is required, its status never defaulted, its metadata the API server's."""
    schema = structural_schema(model, leave_out=OPAQUE)
    schema["required"] = ["spec"]
    schema["properties"] = {
        "apiVersion": {
            "type": "string",
            "description": f"Version of the API that this object is written for, {GROUP}/{VERSION}.",
        },
        "kind": {"type": "string", "description": f"Kind of this object, {model.__name__}."},
        "metadata": {"type": "object"},
        "spec": schema["properties"]["spec"],
        "status": without_defaults(schema["properties"]["status"]),
    }
    return schema


def _subresources(kind: Kind) -> Json:
    subresources: Json = {"status": {}}
    if kind.scale is not None:
        subresources["scale"] = {
            "specReplicasPath": kind.scale.spec_replicas,
            "statusReplicasPath": kind.scale.status_replicas,
            "labelSelectorPath": kind.scale.selector,
        }
    return subresources


def _printer_column(column: Column) -> Json:
    rendered: Json = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return {**rendered, "priority": 1} if column.wide else rendered
