"""Turns the JSON schema of a Pydantic model into a structural schema, the dialect that CRDs are written in.

What has no place in that dialect is either translated or refused; nothing is dropped silently, since a rule that is
missing from the CRD would let bad objects in.
"""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

RULES = "x-kubernetes-validations"

_ORDER = (
    "type",
    "format",
    "description",
    "default",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "properties",
    "items",
    "additionalProperties",
)
"""Keywords of a structural schema that the models use, in the order in which they are written."""

_VERBATIM = set(_ORDER) - {"items", "additionalProperties", "properties", "description"}
"""Keywords that mean the same in both dialects."""

_ANNOTATIONS = {"title", "$defs"}
"""Keywords that Pydantic adds and that constrain nothing."""

_INT32_MAX = 2**31 - 1


class SchemaError(ValueError):
    """A model uses something that a structural schema cannot express. The message names the field."""


def json_schema(model: type[BaseModel], *, leave_out: tuple[str, ...] = ()) -> Schema:
    """The JSON schema of a model in wire names, as Pydantic states it: with `$defs` and references to them.

    Args:
        model: A model whose wire names are its aliases.
        leave_out: Wire names of fields of the model itself that the schema does not describe.
    """
    document = model.model_json_schema(by_alias=True, mode="validation")
    for name in leave_out:
        del document["properties"][name]
    return document


def structural_schema(model: type[BaseModel], *, leave_out: tuple[str, ...] = ()) -> Schema:
    """The structural schema of a model, as a CRD states it: whole, without references.

    Args:
        model: A model whose wire names are its aliases.
        leave_out: Wire names of fields of the model itself that the schema does not describe.

    Raises:
        SchemaError: A field uses a keyword that a CRD cannot hold.
    """
    document = json_schema(model, leave_out=leave_out)
    return convert(document, document.get("$defs", {}), model.__name__)


def convert(node: Schema, definitions: dict[str, Schema], path: str) -> Schema:
    """Converts one node of a JSON schema, and all below it.

    Args:
        node: The JSON schema of a field.
        definitions: The document's `$defs`, for references.
        path: Where the node is, for messages.

    Raises:
        SchemaError: The node or one below it uses a keyword that a CRD cannot hold.
    """
    result: Schema = {}
    for keyword, value in _without_indirection(node, definitions, path).items():
        if keyword == "const":
            result["enum"] = [value]
        elif keyword == "description":
            result["description"] = " ".join(inspect.cleandoc(value).split())
        elif keyword in ("exclusiveMinimum", "exclusiveMaximum"):
            # A number in JSON schema, a flag beside the bound in OpenAPI 3.0.
            result[keyword] = True
            result[keyword.removeprefix("exclusive").lower()] = value
        elif keyword == "properties":
            result["properties"] = {
                name: convert(child, definitions, f"{path}.{name}") for name, child in value.items()
            }
        elif keyword in ("items", "additionalProperties") and isinstance(value, dict):
            result[keyword] = convert(value, definitions, f"{path}[]")
        elif keyword in _VERBATIM or keyword.startswith("x-kubernetes-"):
            result[keyword] = value
        elif keyword not in _ANNOTATIONS:
            raise SchemaError(f"{path}: a CRD cannot express {keyword}: {value!r}")
    _set_number_format(result)
    _set_default(result)
    return _ordered(result)


def without_defaults(schema: Schema) -> Schema:
    """The same schema without any default: for status, which holds what was observed and nothing else."""
    result = {keyword: value for keyword, value in schema.items() if keyword != "default"}
    if "properties" in result:
        result["properties"] = {name: without_defaults(child) for name, child in result["properties"].items()}
    for keyword in ("items", "additionalProperties"):
        if keyword in result:
            result[keyword] = without_defaults(result[keyword])
    return result


def _without_indirection(node: Schema, definitions: dict[str, Schema], path: str) -> Schema:
    """Replaces `$ref` and `anyOf [x, null]` by what they stand for. What stands beside them wins; CEL rules add up."""
    if "$ref" in node:
        target = definitions[node["$ref"].removeprefix("#/$defs/")]
    elif "anyOf" in node:
        choices = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
        if len(choices) != 1:
            raise SchemaError(f"{path}: a CRD cannot express a choice of types")
        target = choices[0]
    else:
        return node
    beside = {keyword: value for keyword, value in node.items() if keyword not in ("$ref", "anyOf")}
    target = _without_indirection(target, definitions, path)
    merged = {**target, **beside}
    if RULES in target and RULES in beside:
        merged[RULES] = [*target[RULES], *beside[RULES]]
    return merged


def _set_number_format(schema: Schema) -> None:
    if schema.get("type") == "integer":
        schema["format"] = "int32" if schema.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64"
    elif schema.get("type") == "number":
        schema["format"] = "double"


def _set_default(schema: Schema) -> None:
    """Keeps a default only where it says something.

    The default of an object is stated whole: the API server checks it against the rules of the object before it fills
    in the defaults of the fields.
    """
    default = _without_empty(schema.pop("default", None))
    if default is not None:
        schema["default"] = default


def _without_empty(default: object) -> object:
    """A default without what means the same as an absent field: None, empty strings, lists and objects."""
    if isinstance(default, dict):
        kept = {name: _without_empty(value) for name, value in default.items()}
        default = {name: value for name, value in kept.items() if value is not None}
    return None if default in ("", [], {}) else default


def _ordered(schema: Schema) -> Schema:
    extensions = sorted(keyword for keyword in schema if keyword.startswith("x-"))
    return {keyword: schema[keyword] for keyword in (*_ORDER, *extensions) if keyword in schema}
