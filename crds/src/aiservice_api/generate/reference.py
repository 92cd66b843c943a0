"""Renders the API reference: one table for every type of object in the API."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from aiservice_api.generate.definition import OPAQUE, Kind, object_schema
from aiservice_api.generate.structural import RULES, Schema, convert, json_schema, without_defaults
from aiservice_api.v1alpha1 import API_VERSION

_BOUNDS = (
    # Lower and upper keyword, and how the pair reads.
    ("minLength", "maxLength", "{} characters"),
    ("minimum", "maximum", "{}"),
    ("minItems", "maxItems", "{} items"),
    ("minProperties", "maxProperties", "{} entries"),
)


@dataclass
class ObjectType:
    """One type of object in the API.

    Attributes:
        name: Its name, that of its Pydantic model.
        declared: Its JSON schema as Pydantic states it, which knows the types of the fields by name.
        schema: The same as the CRD states it.
        places: Where it occurs, for example "AIService `spec.model`".
    """

    name: str
    declared: Schema
    schema: Schema
    places: list[str] = field(default_factory=list)


def reference(kinds: Iterable[Kind], command: str) -> str:
    """The API reference as Markdown.

    Args:
        kinds: The kinds, in the order of the document.
        command: What regenerates the file, for its header.
    """
    kinds = list(kinds)
    parts = [
        f"<!-- Generated from the Pydantic models in crds/src/aiservice_api by `{command}`. Do not edit. -->",
        "# API reference",
        (
            f"The kinds of `{API_VERSION}`. `kubectl explain ais.spec` shows the same text. Rules in quotes are the "
            "sentences with which the API server refuses an object."
        ),
        "\n".join(f"- {_link(kind.name)}: short name `{kind.short_name}`, plural `{kind.plural}`" for kind in kinds),
    ]
    types = object_types(kinds)
    for found in types.values():
        glance = [_glance(types[f"{found.name}Spec"])] if found.name in {kind.name for kind in kinds} else []
        parts.extend([*_section(found), *glance])
    return "\n\n".join(parts) + "\n"


def object_types(kinds: Iterable[Kind]) -> dict[str, ObjectType]:
    """Every type of object in the API by name, in reading order: a kind, then what its fields hold."""
    found: dict[str, ObjectType] = {}
    for kind in kinds:
        document = json_schema(kind.model, leave_out=OPAQUE)
        definitions = document["$defs"]
        for name, path in _places(kind.name, document, definitions, ()):
            if name not in found:
                declared = definitions.get(name, document)
                schema = convert(declared, definitions, name) if path else object_schema(kind.model)
                found[name] = ObjectType(name, declared, without_defaults(schema) if "status" in path else schema)
            if path:
                found[name].places.append(f"{kind.name} `{'.'.join(path)}`")
    return found


def _places(
    name: str, declared: Schema, definitions: dict[str, Schema], path: tuple[str, ...]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The name of a type and its path, then those of all types below it."""
    yield name, path
    for field_name, child in declared["properties"].items():
        target, suffix = _target(child)
        if target and "properties" in definitions[target]:
            yield from _places(target, definitions[target], definitions, (*path, field_name + suffix))


def _target(declared: Schema) -> tuple[str | None, str]:
    """The name of the type that a field holds, if it has one, and what its path gets when it holds several."""
    declared = _present(declared)
    if "items" in declared:
        return _target(declared["items"])[0], "[]"
    return (declared["$ref"].rpartition("/")[2] if "$ref" in declared else None), ""


def _present(declared: Schema) -> Schema:
    """What an optional field holds where it is there."""
    return next(choice for choice in declared.get("anyOf", [declared]) if choice.get("type") != "null")


def _section(of: ObjectType) -> Iterator[str]:
    yield f"## {of.name}"
    yield of.schema["description"]
    if of.places:
        yield "In " + ", ".join(of.places) + "."
    messages = [f"- “{rule['message']}”" for rule in of.schema.get(RULES, [])]
    if messages:
        yield "\n".join(messages)
    yield _table(of)


def _glance(of: ObjectType) -> str:
    """The fields of a spec, a line each, with the names of those within."""
    lines = ["The spec at a glance:", ""]
    for name, declared in of.declared["properties"].items():
        schema = of.schema["properties"][name]
        target, _ = _target(declared)
        inner = schema.get("items", schema).get("properties", {})
        title = f"[`{name}`](#{target.lower()})" if target and inner else f"`{name}`"
        required = " (required)" if name in of.schema.get("required", []) else ""
        sentence = schema["description"].partition(". ")[0].removesuffix(".")
        within = f" → {', '.join(f'`{child}`' for child in inner)}" if inner else ""
        lines.append(f"- {title}{required}: {sentence}.{within}")
    return "\n".join(lines)


def _table(of: ObjectType) -> str:
    rows = ["| field | type | default | rule | description |", "|---|---|---|---|---|"]
    for name, declared in of.declared["properties"].items():
        schema = of.schema["properties"][name]
        default = "required" if name in of.schema.get("required", []) else _default(schema)
        cells = (f"`{name}`", _type(declared, schema), default, _rules(declared, schema), schema["description"])
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _type(declared: Schema, schema: Schema) -> str:
    target, _ = _target(declared)
    declared = _present(declared)
    if "items" in schema:
        return f"list of {_type(declared['items'], schema['items'])}"
    if target and "properties" in schema:
        return _link(target)
    if "x-kubernetes-int-or-string" in schema:
        return "string or integer"
    if "additionalProperties" in schema:
        return f"map of string to {_type(declared['additionalProperties'], schema['additionalProperties'])}"
    return "time" if schema.get("format") == "date-time" else str(schema["type"])


def _default(field: Schema) -> str:
    return f"`{json.dumps(field['default'])}`" if "default" in field else ""


def _rules(declared: Schema, schema: Schema) -> str:
    """The constraints of a field and of its elements in words. Those of a type stand in its own section."""
    own = declared if "properties" in schema else schema
    rules = [*_keywords(schema), *dict.fromkeys(f"“{rule['message']}”" for rule in own.get(RULES, []))]
    for elements in {"items", "additionalProperties"} & schema.keys():
        each = _rules(_present(declared)[elements], schema[elements])
        rules.extend([f"each: {each}"] if each else [])
    return "; ".join(rules)


def _keywords(field: Schema) -> Iterator[str]:
    if "enum" in field:
        yield "one of " + ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("exclusiveMinimum"):
        yield f"above {field['minimum']}"
        field = {keyword: value for keyword, value in field.items() if keyword != "minimum"}
    for lower, upper, words in _BOUNDS:
        if lower in field and upper in field:
            yield words.format(f"{field[lower]} to {field[upper]}")
        elif upper in field:
            yield words.format(f"at most {field[upper]}")
        elif lower in field:
            yield words.format(f"at least {field[lower]}")
    if "pattern" in field:
        yield f"matches `{field['pattern']}`"
    if field.get("x-kubernetes-list-type") == "set":
        yield "no duplicates"
    if "x-kubernetes-list-map-keys" in field:
        yield "no two with the same " + ", ".join(f"`{key}`" for key in field["x-kubernetes-list-map-keys"])
