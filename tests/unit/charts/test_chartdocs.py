"""The generator of the charts' schemas and READMEs."""

import json
from pathlib import Path
from typing import Any

import pytest

from chartdocs.readme import table, with_values
from chartdocs.schema import render
from chartdocs.values import Entry, ValuesError, load

EXAMPLE = """\
# A note about the file.

# -- How many.
# @schema minimum: 1
replicas: 2
image:
  # -- Where from,
  # and more | about it.
  registry: localhost
  # -- Which one.
  # @schema shape: pullPolicy
  pullPolicy: Always
# -- Yours.
# @schema shape: strings
labels: {}
# -- None by default.
# @schema {type: [integer, "null"], maximum: 9}
port: null
"""


def entries(tmp_path: Path, text: str) -> tuple[Entry, ...]:
    file = tmp_path / "values.yaml"
    file.write_text(text)
    return load(file)


def test_schema(tmp_path: Path) -> None:
    schema: Any = json.loads(render("demo", entries(tmp_path, EXAMPLE)))
    assert schema["additionalProperties"] is False
    properties = schema["properties"]
    assert properties["replicas"] == {"description": "How many.", "type": "integer", "minimum": 1}
    assert properties["image"]["additionalProperties"] is False
    assert properties["image"]["properties"]["registry"]["description"] == "Where from, and more | about it."
    assert properties["image"]["properties"]["pullPolicy"]["enum"] == ["Always", "IfNotPresent", "Never"]
    assert properties["labels"]["additionalProperties"] == {"type": "string"}
    assert properties["port"]["type"] == ["integer", "null"]
    assert properties["global"]["type"] == "object"


def test_table(tmp_path: Path) -> None:
    assert table(entries(tmp_path, EXAMPLE)) == (
        "| Value | Default | What it does |\n"
        "|---|---|---|\n"
        "| `replicas` | `2` | How many. |\n"
        '| `image.registry` | `"localhost"` | Where from, and more \\| about it. |\n'
        '| `image.pullPolicy` | `"Always"` | Which one. |\n'
        "| `labels` | `{}` | Yours. |\n"
        "| `port` | `null` | None by default. |\n"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("# -- x\na: 1\nb: 2\n", r"values.yaml:3: `b` has no description"),
        ("a:\n  # no dashes\n  b: 2\n", r"values.yaml:3: `b` has no description"),
        ("# -- x\n# @schema [\na: 1\n", "is no YAML"),
        ("# -- x\n# @schema big\na: 1\n", "is no mapping"),
    ],
)
def test_bad_comments_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ValuesError, match=problem):
        entries(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("# -- x\n# @schema shape: round\na: 1\n", "no shape is called round"), ("# -- x\na: null\n", "`a` is null")],
)
def test_bad_schemas_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ValuesError, match=problem):
        render("demo", entries(tmp_path, text))


def test_the_readme_keeps_what_is_around_the_table() -> None:
    readme = "# Title\n<!-- values: generated from values.yaml by `make generate` -->\nold\n<!-- /values -->\nend\n"
    written = with_values(readme, [Entry("a", 1, "x")])
    assert written.startswith("# Title\n")
    assert written.endswith("<!-- /values -->\nend\n")
    assert "| `a` | `1` | x |" in written
    assert "old" not in written
    assert with_values(written, [Entry("a", 1, "x")]) == written


def test_a_readme_without_marks_is_refused() -> None:
    with pytest.raises(ValuesError, match="needs one line"):
        with_values("# Title\n", [])
