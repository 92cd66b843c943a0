"""`AITenant`: what one tenant may do at the gateway."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from aiservice_api.tasks import Task
from aiservice_api.v1alpha1.common import (
    API_VERSION,
    ApiModel,
    Conditions,
    DnsLabel,
    ObjectMeta,
    ServedName,
    TenantName,
    matching,
    rule,
    validations,
)


class TenantMeasure(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    UNITS = "units"
    CONCURRENCY = "concurrency"
    SPEND = "spend"


class TenantLimit(ApiModel):
    """The most that the tenant may have of something."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "!has(self.window) || self.measure in ['requests', 'units']",
                "window is for requests and units: remove it. concurrency counts what runs now, spend a calendar month",
            ),
            rule(
                "!(self.measure in ['requests', 'concurrency']) || double(int(self.maximum)) == self.maximum",
                "requests and concurrency are counted whole: write maximum without a fraction",
            ),
            rule(
                "self.measure != 'requests' || self.maximum <= 1000000.0",
                "each request of a window is remembered, so at most 1000000 can be: lower maximum and shorten window",
            ),
        )
    )

    measure: Annotated[
        TenantMeasure,
        Field(
            description="requests: how many within the window. units: what the services measure (images, characters, "
            "seconds of audio), within the window. concurrency: how many requests at the same time. spend: US dollars "
            "within a calendar month in UTC."
        ),
    ]
    maximum: Annotated[float, Field(description="The most that there may be.", gt=0, le=1_000_000_000_000)]
    window: Annotated[
        str | None,
        Field(
            description="The time that requests or units are counted in, for example 60s, 30m, 24h or 7d: any stretch "
            "of it, not one of the clock. Unset: 1h.",
            max_length=8,
            json_schema_extra=matching(
                "^([1-9][0-9]{0,6}s|[1-9][0-9]{0,4}m|[1-9][0-9]{0,2}h|[1-9][0-9]?d)$",
                "write a number and a unit, at most 99d: 90s, 30m, 24h or 7d",
            ),
        ),
    ] = None
    task: Annotated[Task | None, Field(description="The task that is counted. Unset: all of them together.")] = None


class TenantApiKey(ApiModel):
    """A key for machines, sent as bearer in place of a token. Only its hash is kept."""

    name: Annotated[DnsLabel, Field(description="What tells it from the tenant's other keys, for example ci.")]
    sha256: Annotated[
        str,
        Field(
            description="SHA-256 of the whole key. `python -m aiservice_gateway key` makes a key and prints this.",
            max_length=64,
            json_schema_extra=matching(
                "^[0-9a-f]{64}$",
                "write the SHA-256 of the key, 64 lower-case hex digits, as `python -m aiservice_gateway key` prints "
                "it, never the key itself",
            ),
        ),
    ]
    user: Annotated[
        TenantName | None,
        Field(description="The user in records of what the key is used for. Unset: the key's name."),
    ] = None
    admin: Annotated[bool, Field(description="Whether its holder sees the usage of every tenant.")] = False
    expires: Annotated[datetime | None, Field(description="From when on it is refused. Unset: never.")] = None


def _text(holder: str, field: str) -> str:
    """CEL: an optional text, or an empty one."""
    return f"(has({holder}.{field}) ? {holder}.{field} : '')"


_SAME_LIMIT = " && ".join(
    ["a.measure == b.measure", *(f"{_text('a', f)} == {_text('b', f)}" for f in ("task", "window"))]
)


class AITenantSpec(ApiModel):
    """What a tenant may do."""

    tenant: Annotated[
        TenantName | None,
        Field(description="The tenant, as tokens name it. Unset: the name of this object."),
    ] = None
    suspend: Annotated[
        bool, Field(description="Whether the tenant is refused for now, with every token and key of its own.")
    ] = False
    services: Annotated[
        list[ServedName] | None,
        Field(
            description="The services that it may use, by their names or as NAMESPACE/NAME; the others are not there "
            "for it. Unset: all that admit it (spec.gateway.tenants of an AIService).",
            max_length=256,
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None
    limits: Annotated[
        list[TenantLimit],
        Field(
            description="The most that it may have; all of them hold. A limit on requests for a task replaces the "
            "gateway's default for that task, one without a task replaces the default for every task. The others come "
            "on top.",
            max_length=32,
            json_schema_extra=validations(
                rule(
                    f"self.all(a, self.exists_one(b, {_SAME_LIMIT}))",
                    "two limits count the same measure, task and window: keep the one that is to hold",
                )
            ),
        ),
    ] = []
    api_keys: Annotated[
        list[TenantApiKey],
        Field(
            description="Keys for machines.",
            max_length=64,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []


class AITenantStatus(ApiModel):
    """What the gateway made of an AITenant."""

    observed_generation: Annotated[int, Field(description="The generation that this status describes.", ge=0)] = 0
    conditions: Conditions = []


class AITenant(ApiModel):
    """What one tenant may do at the gateway: limits, services, keys. Read from the gateway's own namespace."""

    api_version: Literal["aiservice.dev/v1alpha1"] = API_VERSION
    kind: Literal["AITenant"] = "AITenant"
    metadata: ObjectMeta
    spec: AITenantSpec
    status: AITenantStatus = AITenantStatus()
