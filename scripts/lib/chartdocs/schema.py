"""Renders `values.schema.json`, which Helm holds every install and upgrade against.

Objects are closed wherever their keys are the chart's: a misspelt value is refused instead of ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from chartdocs.shapes import SHAPES
from chartdocs.values import Entry, Json, ValuesError

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def render(chart: str, entries: Iterable[Entry]) -> str:
    """Returns the JSON schema of a chart's values as text.

    Draft 7, without references: what the validators of all Helm versions in use understand.
    """
    root = _section(entries)
    root["properties"]["global"] = {
        "type": "object",
        "description": "What Helm hands to every subchart; this chart reads nothing from it.",
    }
    document = {"$schema": "http://json-schema.org/draft-07/schema#", "title": f"Values of {chart}", **root}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _section(entries: Iterable[Entry]) -> Json:
    properties = {entry.name: _property(entry) for entry in entries}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _property(entry: Entry) -> Json:
    return _section(entry.children) if entry.children else _value(entry)


def _value(entry: Entry) -> Json:
    keys = dict(entry.schema)
    shape = keys.pop("shape", None)
    if shape is not None and shape not in SHAPES:
        raise ValuesError(f"`{entry.name}`: no shape is called {shape}; shapes.py has {', '.join(SHAPES)}")
    described: Json = {"description": entry.description}
    if shape is not None:
        return described | SHAPES[shape] | keys
    if entry.default is None and "type" not in keys:
        raise ValuesError(f'`{entry.name}` is null, which tells no type: add `# @schema type: [..., "null"]`')
    return described | ({} if entry.default is None else {"type": _TYPES[type(entry.default)]}) | keys
