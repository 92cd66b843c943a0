"""What the kinds of `aiservice.dev/v1alpha1` share: the base model, metadata, conditions and CEL rules.

Every list, string and map has a bound: without one the API server assumes the worst case and refuses the cost of the
CEL rules (https://kubernetes.io/docs/reference/using-api/cel/#resource-use-constraints).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP: Final = "aiservice.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "aiservice.dev/v1alpha1"

_CREDENTIALS = "self.matches('^[a-z]+://[^/?#]*@')"
"""CEL: a string is an address that carries credentials (`https://user:password@host/`)."""

_HOST_PART = "[^/?#@.:[:space:]]{1,63}"
_HOST = f"({_HOST_PART}([.]{_HOST_PART})*[.]?|[[][0-9a-fA-F:.]+[]])(:[0-9]+)?"
"""RE2: a name whose parts DNS can look up, or an address; with a port or without."""


class ApiModel(BaseModel):
    """Base of all API models: camelCase on the wire, snake_case in Python.

    Unknown fields are ignored, so that an operator one version behind the CRDs keeps working.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    def to_wire(self) -> dict[str, Any]:
        """Returns the JSON form that Kubernetes stores: camelCase keys, no nulls."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def rule(expression: str, message: str, *, message_expression: str | None = None) -> dict[str, str]:
    """One CEL validation rule of a CRD schema.

    Args:
        expression: CEL over `self`; true where the value is good.
        message: What to change, shown when it is not.
        message_expression: CEL that builds the message from the value, where that helps the reader.
    """
    built = {"rule": expression, "message": message}
    if message_expression is not None:
        built["messageExpression"] = message_expression
    return built


def validations(*rules: dict[str, str]) -> dict[str, Any]:
    """The JSON-schema extra that carries CEL rules to the generated CRD."""
    return {"x-kubernetes-validations": list(rules)}


def matching(pattern: str, message: str) -> dict[str, Any]:
    """The JSON-schema extra of a string that matches a pattern: as a rule, since `pattern` only quotes itself.

    Args:
        pattern: RE2 without a quote or backslash, anchored.
        message: What to write instead.
    """
    return validations(rule(f"self.matches('{pattern}')", message))


_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"

DnsLabel = Annotated[
    str,
    Field(
        max_length=63,
        json_schema_extra=matching(
            f"^{_LABEL}$", "write lower-case letters, digits and dashes, with a letter or digit at both ends"
        ),
    ),
]
"""An RFC 1123 label, as names of services and profiles are."""

DnsSubdomain = Annotated[
    str,
    Field(
        max_length=253,
        json_schema_extra=matching(
            f"^{_LABEL}([.]{_LABEL})*$",
            "write the name of an object: lower-case letters, digits, dashes and dots, with a letter or digit at both "
            "ends",
        ),
    ),
]
"""An RFC 1123 subdomain, as names of most Kubernetes objects are."""

RelativePath = Annotated[str, Field(max_length=512)]
"""A path below a folder: no leading slash, no `..` (held by a CEL rule where it is used)."""

SAFE_PATH = "!self.matches('(^|/)[.]{0,2}(/|$)')"
"""CEL: a string is a path below a folder: relative, without empty parts, `.` and `..`."""

DataKey = Annotated[
    str,
    Field(
        max_length=253,
        json_schema_extra=matching(
            "^[-._A-Za-z0-9]+$", "write one key of the object: letters, digits, dashes, underscores and dots"
        ),
    ),
]
"""A key of a ConfigMap or Secret."""

ServedName = Annotated[
    str,
    Field(
        max_length=128,
        json_schema_extra=matching(
            "^[A-Za-z0-9][A-Za-z0-9._/-]*$",
            "write a name of letters, digits, dots, underscores, dashes and slashes that starts with a letter or "
            "digit, for example whisper-1",
        ),
    ),
]
"""A name that clients ask for, in the style of model names: whisper-1, openai/whisper-large-v3."""

TenantName = Annotated[str, Field(min_length=1, max_length=256)]
"""A tenant or a user as tokens name it: any text."""


def exactly_one(*names: str, of: str) -> dict[str, str]:
    """The rule that exactly one of some optional fields is set; its message says which are.

    Args:
        names: Wire names of the fields.
        of: The fields in words, for the sentence "set exactly one of ...".
    """
    present = [f"has(self.{name})" for name in names]
    listed = " + ".join(f"({has} ? ' {name}' : '')" for has, name in zip(present, names, strict=True))
    return rule(
        f"[{', '.join(present)}].exists_one(present, present)",
        f"set exactly one of {of}",
        message_expression=f"'set exactly one of {of}; set here:' + ({' || '.join(present)} ? {listed} : ' none')",
    )


def http_url(path: str, example: str) -> tuple[dict[str, str], dict[str, str]]:
    """The rules of an address that something is fetched from, each with its own sentence.

    Args:
        path: Regular expression of what may follow the host.
        example: A good value, for the sentence.
    """
    return (
        rule(
            f"{_CREDENTIALS} || self.matches('^https?://{_HOST}{path}$')",
            "write an http:// or https:// address without blanks or #fragment, its host in parts of 1 to 63 characters "
            f"between dots, such as {example}",
        ),
        rule(
            f"!{_CREDENTIALS}",
            "the address carries a user name or password, which everybody who may read this object would see: "
            "remove the part before the @",
        ),
    )


class ObjectMeta(ApiModel):
    """The parts of `metadata` that the project reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    owner_references: list[dict[str, Any]] = []


class ConditionStatus(StrEnum):
    """Status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One aspect of the object's state, by the Kubernetes API conventions."""

    type: Annotated[str, Field(description="Which aspect of the state this is, for example Ready.", max_length=316)]
    status: Annotated[ConditionStatus, Field(description="True, False, or Unknown while it is being worked on.")]
    observed_generation: Annotated[
        int, Field(description="The metadata.generation that this condition was computed from.", ge=0)
    ] = 0
    last_transition_time: Annotated[datetime, Field(description="When the status last changed.")]
    reason: Annotated[
        str,
        Field(
            description="One CamelCase word for programs.",
            max_length=1024,
            pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        ),
    ]
    message: Annotated[
        str, Field(description="A sentence for people: what is so, and what to do.", max_length=32768)
    ] = ""


class LastFailure(ApiModel):
    """The last thing that went wrong below this object."""

    reason: Annotated[str, Field(description="One CamelCase word, for example ImagePullBackOff.", max_length=1024)]
    message: Annotated[str, Field(description="What happened, in the words of the part that failed.", max_length=32768)]
    object: Annotated[str, Field(description="The object that failed, as Kind/name.", max_length=512)] = ""
    time: Annotated[datetime, Field(description="When it was last seen.")]


Conditions = Annotated[
    list[Condition],
    Field(
        description="The state of this object, aspect by aspect.",
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]
