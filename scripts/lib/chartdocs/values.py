"""Reads a `values.yaml` with its comments."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

_DESCRIPTION = re.compile(r"\s*# -- (.*)")
_SCHEMA = re.compile(r"\s*# @schema (.*)")
_COMMENT = re.compile(r"\s*# ?(.*)")


class ValuesError(Exception):
    """A comment is missing or cannot be read; the message names file and line."""


@dataclass(frozen=True)
class Entry:
    """One value, or a section that holds others.

    A value has a description and no children, whatever its default is; a section has children and no description.
    """

    name: str
    default: Any
    description: str = ""
    schema: Json = field(default_factory=dict)
    """JSON-schema keys of the `# @schema` comment; `shape` names one of `shapes.SHAPES`."""
    children: tuple[Entry, ...] = ()


def load(path: Path) -> tuple[Entry, ...]:
    """Returns the top-level entries of a commented values file.

    Raises:
        ValuesError: a value has no description, or a `# @schema` comment is no YAML mapping.
    """
    text = path.read_text()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode), f"{path} holds no mapping"  # noqa: S101 - a chart without values is no chart
    return _entries(root, text.splitlines(), path)


def _entries(node: yaml.MappingNode, lines: list[str], path: Path) -> tuple[Entry, ...]:
    return tuple(_entry(key, value, lines, path) for key, value in node.value)


def _entry(key: yaml.Node, value: yaml.Node, lines: list[str], path: Path) -> Entry:
    line = key.start_mark.line
    description, schema_text = _comment_above(lines, line)
    if not description:
        if isinstance(value, yaml.MappingNode) and value.value:
            return Entry(key.value, default=None, children=_entries(value, lines, path))
        raise ValuesError(f"{path}:{line + 1}: `{key.value}` has no description: put a comment `# -- ...` above it")
    try:
        schema = yaml.safe_load(schema_text) if schema_text else {}
    except yaml.YAMLError as error:
        raise ValuesError(f"{path}:{line + 1}: `# @schema {schema_text}` is no YAML: {error}") from error
    if not isinstance(schema, dict):
        raise ValuesError(f"{path}:{line + 1}: `# @schema {schema_text}` is no mapping of JSON-schema keys")
    loader = yaml.SafeLoader("")
    try:
        default = loader.construct_object(value, deep=True)
    finally:
        loader.dispose()
    return Entry(key.value, default, description, schema)


def _comment_above(lines: list[str], line: int) -> tuple[str, str]:
    """The description and the `@schema` text in the comment that ends just above a line."""
    first = line
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    words: list[str] = []
    schema = ""
    for comment in lines[first:line]:
        if found := _SCHEMA.fullmatch(comment):
            schema = found[1]
        elif found := _DESCRIPTION.fullmatch(comment):
            words = [found[1]]
        elif words and (found := _COMMENT.fullmatch(comment)):
            words.append(found[1])
    return " ".join(words), schema
