"""The generator's command line, and what it made of the real models."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiservice_api.generate.__main__ import REPOSITORY, main
from aiservice_api.generate.definition import KINDS, Kind, definition
from aiservice_api.generate.outputs import outputs
from aiservice_api.generate.reference import object_types

Schema = dict[str, Any]


def test_the_committed_files_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--check"])

    assert capsys.readouterr().err == ""
    assert code == 0


def test_check_names_missing_and_edited_files_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--root", str(tmp_path)])
    edited, missing = tmp_path / "docs/api-reference.md", tmp_path / "crds/aiservices.aiservice.dev.yaml"
    edited.write_text("something else\n")
    missing.unlink()
    capsys.readouterr()

    assert main(["--check", "--root", str(tmp_path)]) == 1

    assert capsys.readouterr().err.splitlines() == [
        "docs/api-reference.md is stale: run `make generate`",
        "crds/aiservices.aiservice.dev.yaml is stale: run `make generate`",
    ]
    assert edited.read_text() == "something else\n"
    assert not missing.exists()


def test_generating_mends_what_check_named_and_touches_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--root", str(tmp_path)])
    (tmp_path / "crds/modelcaches.aiservice.dev.yaml").write_text("")
    capsys.readouterr()

    assert main(["--root", str(tmp_path)]) == 0

    assert capsys.readouterr().out == "wrote crds/modelcaches.aiservice.dev.yaml\n"
    assert main(["--check", "--root", str(tmp_path)]) == 0


def test_the_chart_has_the_same_crds() -> None:
    for kind in KINDS:
        name = f"{kind.crd_name}.yaml"
        chart_copy = REPOSITORY / "charts/aiservice-operator/files/crds" / name
        assert chart_copy.read_text() == (REPOSITORY / "crds" / name).read_text()


def test_every_crd_file_says_that_it_is_generated_and_parses_to_its_definition() -> None:
    texts = {str(path): text for path, text in outputs().items()}
    for kind in KINDS:
        text = texts[f"crds/{kind.crd_name}.yaml"]
        assert text.startswith("# Generated from ")
        assert yaml.safe_load(text) == definition(kind)


def test_the_reference_has_a_section_for_every_type_and_says_where_it_occurs() -> None:
    types = object_types(KINDS)

    assert list(types)[:3] == ["AIService", "AIServiceSpec", "ModelCacheSpec"]
    assert types["ModelCacheSpec"].places == ["AIService `spec.model`", "ModelCache `spec`"]
    assert types["EnvVar"].places == ["AIService `spec.engine.env[]`", "AIService `spec.pod.sidecars[].env[]`"]
    reference = outputs()[next(path for path in outputs() if path.name == "api-reference.md")]
    for name in types:
        assert f"\n## {name}\n" in reference


def test_the_reference_shows_each_spec_at_a_glance() -> None:
    reference = outputs()[next(path for path in outputs() if path.name == "api-reference.md")]

    [service, cache, tenant] = [
        part.partition("\n\n## ")[0] for part in reference.split("The spec at a glance:\n\n")[1:]
    ]

    assert service.splitlines()[0] == "- `tasks` (required): What the service does."
    assert "- [`modelCacheRef`](#modelcacheref): Use a ModelCache that you made. → `name`" in service.splitlines()
    assert "- [`pvc`](#pvcsource): Use files that are already on a volume. → `claimName`, `path`" in cache.splitlines()
    assert "- [`limits`](#tenantlimit): The most that it may have; all of them hold. → " in tenant
    for kind, listed in zip(KINDS, (service, cache, tenant), strict=True):
        assert len(listed.splitlines()) == len(object_schema_of(kind)["properties"]["spec"]["properties"])


def nodes(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """A schema and every schema below it, with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from nodes(schema[keyword], f"{path}[]")


@functools.cache
def object_schema_of(kind: Kind) -> Schema:
    schema: Schema = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def declared_nodes() -> list[tuple[str, Schema]]:
    """Every schema of spec and status of every kind."""
    return [
        found
        for kind in KINDS
        for top in ("spec", "status")
        for found in nodes(object_schema_of(kind)["properties"][top], f"{kind.name}.{top}")
    ]


def test_every_field_has_a_description_that_is_a_sentence() -> None:
    fields = [(path, schema) for path, schema in declared_nodes() if not path.endswith("[]")]
    assert len(fields) > 100
    wrong = [path for path, schema in fields if not schema.get("description", "").endswith((".", ".'"))]
    assert wrong == []


@pytest.mark.parametrize(("of_type", "bound"), [("string", "maxLength"), ("array", "maxItems")])
def test_every_string_and_list_is_bounded(of_type: str, bound: str) -> None:
    """Without a bound the API server assumes the worst case and refuses the cost of the rules."""
    of_that_type = [
        (path, schema)
        for path, schema in declared_nodes()
        if schema.get("type") == of_type and "enum" not in schema and schema.get("format") != "date-time"
    ]
    assert len(of_that_type) > 5
    assert [path for path, schema in of_that_type if bound not in schema] == []


def test_every_map_is_bounded() -> None:
    maps = [(path, schema) for path, schema in declared_nodes() if "additionalProperties" in schema]
    assert len(maps) > 2
    assert [path for path, schema in maps if "maxProperties" not in schema] == []


def test_every_rule_has_a_message_of_one_line() -> None:
    """The API server shows it where a messageExpression fails, and refuses line breaks."""
    rules = [rule for _, schema in declared_nodes() for rule in schema.get("x-kubernetes-validations", [])]
    assert len(rules) > 20
    assert [rule for rule in rules if not rule["message"].strip() or "\n" in rule["message"]] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_columns_and_scale_read_fields_that_exist(kind: Kind) -> None:
    paths = [column.path for column in kind.columns if not column.path.startswith(".metadata.")]
    if kind.scale:
        paths += [kind.scale.spec_replicas, kind.scale.status_replicas, kind.scale.selector]
    for path in paths:
        schema = object_schema_of(kind)
        for step in re.sub(r'\[\?\(@\.type=="[A-Za-z]+"\)\]', "", path.lstrip(".")).split("."):
            schema = schema.get("items", schema)["properties"][step]


def test_the_status_of_no_kind_has_a_default() -> None:
    """A default there would show what nobody observed."""
    for kind in KINDS:
        for path, schema in nodes(object_schema_of(kind)["properties"]["status"], "status"):
            assert "default" not in schema, path
