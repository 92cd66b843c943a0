"""What Pydantic's JSON schema becomes in a CRD, snippet by snippet."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from aiservice_api.generate.structural import SchemaError, convert, structural_schema, without_defaults


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(Model):
    """What an inner object is,

    in more than one line.
    """

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": [{"rule": "a", "message": "of the type"}]})

    max_size: int = 3
    names: list[str] = []
    note: str | None = None


def property_of(annotation: Any, default: Any = ...) -> dict[str, Any]:
    """The structural schema of a field that is declared like this."""
    model = type(
        "Holder", (Model,), {"__annotations__": {"field": annotation}} | ({} if default is ... else {"field": default})
    )
    converted: dict[str, Any] = structural_schema(model)["properties"]["field"]
    return converted


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        pytest.param(str, {"type": "string"}, id="string"),
        pytest.param(bool, {"type": "boolean"}, id="boolean"),
        pytest.param(float, {"type": "number", "format": "double"}, id="float"),
        pytest.param(int, {"type": "integer", "format": "int64"}, id="unbounded-integer"),
        pytest.param(
            Annotated[int, Field(ge=0, le=1000)],
            {"type": "integer", "format": "int32", "minimum": 0, "maximum": 1000},
            id="small-integer",
        ),
        pytest.param(
            Annotated[int, Field(gt=0, lt=2**40)],
            {
                "type": "integer",
                "format": "int64",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 2**40,
                "exclusiveMaximum": True,
            },
            id="exclusive-bounds",
        ),
        pytest.param(datetime, {"type": "string", "format": "date-time"}, id="time"),
        pytest.param(Colour, {"type": "string", "enum": ["red", "blue"]}, id="enum"),
        pytest.param(Literal["red", "blue"], {"type": "string", "enum": ["red", "blue"]}, id="literal"),
        pytest.param(Literal["red"], {"type": "string", "enum": ["red"]}, id="constant"),
        pytest.param(
            Annotated[str, Field(pattern="^a+$", min_length=1, max_length=9)],
            {"type": "string", "pattern": "^a+$", "minLength": 1, "maxLength": 9},
            id="bounded-string",
        ),
        pytest.param(
            Annotated[
                list[str], Field(min_length=1, max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"})
            ],
            {
                "type": "array",
                "minItems": 1,
                "maxItems": 2,
                "items": {"type": "string"},
                "x-kubernetes-list-type": "set",
            },
            id="set",
        ),
        pytest.param(
            Annotated[dict[str, Annotated[str, Field(max_length=5)]], Field(max_length=8)],
            {"type": "object", "maxProperties": 8, "additionalProperties": {"type": "string", "maxLength": 5}},
            id="map",
        ),
    ],
)
def test_a_field_becomes(annotation: Any, expected: dict[str, Any]) -> None:
    assert property_of(annotation) == expected


def test_an_optional_field_is_the_field_without_null() -> None:
    assert property_of(Annotated[int, Field(le=9)] | None, None) == property_of(Annotated[int, Field(le=9)])


def test_only_fields_without_a_default_are_required() -> None:
    class Holder(Model):
        first_name: str
        last_name: str | None = None
        age: int = 0

    assert structural_schema(Holder)["required"] == ["firstName"]


def test_a_referenced_object_is_written_out_where_it_is_used() -> None:
    assert property_of(Inner) == {
        "type": "object",
        "description": "What an inner object is, in more than one line.",
        "properties": {
            "maxSize": {"type": "integer", "format": "int64", "default": 3},
            "names": {"type": "array", "items": {"type": "string"}},
            "note": {"type": "string"},
        },
        "x-kubernetes-validations": [{"rule": "a", "message": "of the type"}],
    }


def test_a_field_adds_its_rules_to_those_of_its_type_and_has_its_own_description() -> None:
    extra: dict[str, Any] = {"x-kubernetes-validations": [{"rule": "b", "message": "of the field"}]}

    schema = property_of(Annotated[Inner, Field(description="Here.", json_schema_extra=extra)])

    assert schema["description"] == "Here."
    assert [rule["message"] for rule in schema["x-kubernetes-validations"]] == ["of the type", "of the field"]


@pytest.mark.parametrize(
    ("annotation", "default", "expected"),
    [
        pytest.param(bool, False, False, id="false-is-said"),
        pytest.param(int, 0, 0, id="zero-is-said"),
        pytest.param(Colour, Colour.BLUE, "blue", id="enum"),
        pytest.param(Inner, Inner(), {"maxSize": 3}, id="object-is-stated-whole-and-without-empty-fields"),
        pytest.param(Inner, Inner(max_size=4, names=["a"]), {"maxSize": 4, "names": ["a"]}, id="object-with-values"),
    ],
)
def test_a_default_that_says_something_is_kept(annotation: Any, default: Any, expected: Any) -> None:
    assert property_of(annotation, default)["default"] == expected


class AllOptional(Model):
    names: list[str] = []


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        pytest.param(str | None, None, id="none"),
        pytest.param(str, "", id="empty-string"),
        pytest.param(list[str], [], id="empty-list"),
        pytest.param(dict[str, str], {}, id="empty-map"),
        pytest.param(AllOptional, AllOptional(), id="object-of-nothing-but-empty-fields"),
    ],
)
def test_a_default_that_means_absent_is_left_out(annotation: Any, default: Any) -> None:
    assert "default" not in property_of(annotation, default)


def test_status_loses_its_defaults_at_every_depth() -> None:
    class Status(Model):
        inner: Inner = Inner()
        several: list[Inner] = []
        by_name: dict[str, Inner] = {}

    schema = structural_schema(Status)
    assert "default" in str(schema)

    assert "default" not in str(without_defaults(schema))


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        pytest.param({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "field.*choice of types", id="union"),
        pytest.param({"type": "object", "propertyNames": {"pattern": "^a"}}, "field.*propertyNames", id="key-pattern"),
        pytest.param({"type": "object", "additionalProperties": True}, "field.*additionalProperties", id="anything"),
        pytest.param({"type": "array", "prefixItems": [{"type": "string"}]}, "field.*prefixItems", id="tuple"),
    ],
)
def test_what_a_crd_cannot_express_is_refused_and_named(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        convert({"type": "object", "properties": {"field": schema}}, {}, "Model")
