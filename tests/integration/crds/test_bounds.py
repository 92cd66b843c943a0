"""Every bound of every field, broken alone in a manifest that states all of them: the refusal names the field."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.crd_schema import KINDS, RULES, Schema, Steps, at, named, object_schema, places, spec_fields
from support.full_manifests import FULL
from support.kube_api import ApiError, KubeApi
from support.manifests import Manifest

Broken = tuple[Any, str]
"""A bad value for a field, and what the refusal says besides the field's name."""

_NASTY = ("not good!", "../not-good", "")
"""Strings, and keys of maps, of which each rule refuses one."""


def broken(schema: Schema, good: Any) -> Iterator[Broken]:
    """Bad values for a field, one for each of its bounds."""
    if "enum" in schema:
        yield "NoSuchWord", "supported values: "
    if "x-kubernetes-int-or-string" in schema:
        yield True, "must be of type integer,string"
    elif schema["type"] == "string":
        yield 17, f"must be of type {schema.get('format', 'string')}"
    else:
        yield "text", f"must be of type {schema['type']}"
    if "maxLength" in schema:
        yield "a" * (schema["maxLength"] + 1), "may not be more than"
    if "minLength" in schema:
        yield "", "should be at least"
    if "minimum" in schema:
        exclusive = schema.get("exclusiveMinimum", False)
        yield schema["minimum"] - 1, "should be greater than" + ("" if exclusive else " or equal to")
    if "maximum" in schema:
        yield schema["maximum"] + 1, "should be less than or equal to"
    if "minItems" in schema:
        yield [], "should have at least"
    if "maxItems" in schema:
        yield [good[0]] * (schema["maxItems"] + 1), "must have at most"
    if "maxProperties" in schema:
        [value, *_] = good.values()
        yield {f"key-{number}": value for number in range(schema["maxProperties"] + 1)}, "must have at most"


def replaced(manifest: Manifest, steps: Steps, value: Any) -> Manifest:
    """The manifest with another value at a place."""
    result = copy.deepcopy(manifest)
    at(result, steps[:-1])[steps[-1]] = value
    return result


def stated(kind: str, path: str) -> tuple[Manifest, Steps]:
    """A good manifest that states a field, and where."""
    for manifest in FULL:
        if manifest["kind"] == kind and (found := places(manifest, path)):
            return manifest, found[0]
    raise AssertionError(f"no full manifest states {path} of {kind}")


def refusal(server: KubeApi, manifest: Manifest) -> str:
    """The words with which a manifest is refused; none where it is accepted."""
    try:
        server.dry_create(manifest)
    except ApiError as error:
        return error.message
    return ""


def of_words(schema: Schema) -> bool:
    """Whether a field holds a string, or a map by strings."""
    of_strings = schema.get("type") == "string" or "x-kubernetes-int-or-string" in schema
    return of_strings or "additionalProperties" in schema


def fields(wanted: Callable[[Schema], bool] = bool) -> list[Any]:
    """The fields of all kinds whose schema is wanted, as parameters of a test."""
    return [
        pytest.param(kind, path, schema, id=f"{kind}.{path}")
        for kind in KINDS
        for path, schema in spec_fields(kind).items()
        if wanted(schema)
    ]


@pytest.mark.parametrize(("kind", "path", "schema"), fields())
def test_a_value_beyond_the_bounds_is_refused_by_the_name_of_the_field(
    server: KubeApi, kind: str, path: str, schema: Schema
) -> None:
    manifest, steps = stated(kind, path)
    # Bounds of the values of maps are told with a dot before the key, rules of theirs with brackets around it.
    place = named(object_schema(kind), steps).replace("[", ".").replace("]", "")

    for value, words in broken(schema, at(manifest, steps)):
        said = refusal(server, replaced(manifest, steps, value))
        assert place in said.replace("[", ".").replace("]", ""), (value, said)
        assert words in said, (value, said)


@pytest.mark.parametrize(("kind", "path", "schema"), fields(lambda schema: RULES in schema and of_words(schema)))
def test_a_value_against_the_rules_is_refused_with_a_sentence_of_the_field(
    server: KubeApi, kind: str, path: str, schema: Schema
) -> None:
    """Rules of objects, lists and numbers are not broken by nonsense; `bad_manifests` has a case for each."""
    manifest, steps = stated(kind, path)
    good, place = at(manifest, steps), named(object_schema(kind), steps)
    sentences = [rule["message"] for rule in schema[RULES]]
    nasty = [{word: next(iter(good.values()))} if isinstance(good, dict) else word for word in _NASTY]

    said = [refusal(server, replaced(manifest, steps, value)) for value in nasty]

    assert any(f"{place}: Invalid value" in words and sentence in words for words in said for sentence in sentences)


@pytest.mark.parametrize(("kind", "path", "schema"), fields(lambda schema: "required" in schema))
def test_a_required_field_is_missed_by_its_name(server: KubeApi, kind: str, path: str, schema: Schema) -> None:
    manifest, steps = stated(kind, path)

    for name in schema["required"]:
        rest = {field: value for field, value in at(manifest, steps).items() if field != name}
        said = refusal(server, replaced(manifest, steps, rest))
        assert f"{named(object_schema(kind), steps)}.{name}: Required value" in said


@pytest.mark.parametrize(("kind", "path", "schema"), fields(lambda schema: "properties" in schema))
def test_a_misspelt_field_is_refused(server: KubeApi, kind: str, path: str, schema: Schema) -> None:
    manifest, steps = stated(kind, path)
    assert "misspelt" not in schema["properties"]

    said = refusal(server, replaced(manifest, steps, {**at(manifest, steps), "misspelt": 1}))

    assert f'unknown field "{named(object_schema(kind), steps)}.misspelt"' in said
