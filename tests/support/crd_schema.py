"""The CRDs as the repository has them, walked field by field: what may be written where."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import yaml

from support.cluster import REPOSITORY
from support.manifests import Manifest

Schema = dict[str, Any]
Steps = tuple[str | int, ...]

RULES = "x-kubernetes-validations"
EACH = "[]"
"""The step from a list or map to any of its values."""
_FILES = {
    "AIService": "aiservices.aiservice.dev",
    "ModelCache": "modelcaches.aiservice.dev",
    "AITenant": "aitenants.aiservice.dev",
}
KINDS = tuple(_FILES)


@functools.cache
def object_schema(kind: str) -> Schema:
    """The schema of a whole object."""
    definition = yaml.safe_load((REPOSITORY / f"crds/{_FILES[kind]}.yaml").read_text())
    schema: Schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def spec_fields(kind: str) -> dict[str, Schema]:
    """Every field of the spec with its schema, by its path: `spec.pod.sidecars[].env[].name`."""
    return dict(_below("spec", object_schema(kind)["properties"]["spec"]))


def _below(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _below(f"{path}.{name}", child)
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from _below(path + EACH, schema[keyword])


def rules(kind: str) -> Iterator[dict[str, str]]:
    """Every CEL rule of a kind, those of the whole object included."""
    yield from object_schema(kind).get(RULES, [])
    for schema in spec_fields(kind).values():
        yield from schema.get(RULES, [])


def places(manifest: Manifest, path: str) -> list[Steps]:
    """Where a manifest states the field of a path, each place as keys and indexes."""
    found: list[Steps] = [()]
    for step in path.replace(EACH, f".{EACH}").split("."):
        found = [(*steps, key) for steps in found for key in _keys(at(manifest, steps), step)]
    return found


def _keys(value: Any, step: str) -> list[str | int]:
    if step == EACH:
        return list(value) if isinstance(value, dict) else list(range(len(value)))
    return [step] if step in value else []


def at(manifest: Manifest, steps: Steps) -> Any:
    """The value at a place."""
    value: Any = manifest
    for step in steps:
        value = value[step]
    return value


def named(schema: Schema, steps: Steps) -> str:
    """A place as the API server names it: `spec.pod.labels[team]`, `spec.tasks[0]`."""
    text = ""
    for step in steps:
        in_map = "additionalProperties" in schema
        text += f"[{step}]" if isinstance(step, int) or in_map else f".{step}"
        schema = schema.get("items") or schema.get("additionalProperties") or schema["properties"][step]
    return text.lstrip(".")
