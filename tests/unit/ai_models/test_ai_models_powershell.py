"""scripts/download-ai-models.ps1, read by a real parser: nothing here can run it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

from ai_models.arguments import parser

SCRIPT = Path(__file__).parents[3] / "scripts" / "download-ai-models.ps1"


def parse(text: bytes) -> Node:
    """The syntax tree of a script."""
    return Parser(Language(tree_sitter_powershell.language())).parse(text).root_node


@pytest.fixture(scope="module")
def root() -> Node:
    return parse(SCRIPT.read_bytes())


def nodes(root: Node, kind: str) -> Iterator[Node]:
    """All nodes of a kind, in their order."""
    if root.type == kind:
        yield root
    for child in root.children:
        yield from nodes(child, kind)


def text(node: Node) -> str:
    """What a node stands for in the script."""
    assert node.text is not None
    return node.text.decode()


def parameters(root: Node) -> dict[str, str]:
    """The script's parameters with their types."""
    (block,) = nodes(root, "param_block")
    found = {}
    for parameter in nodes(block, "script_parameter"):
        (name,) = [child for child in parameter.children if child.type == "variable"]
        types = [text(kind) for kind in nodes(parameter, "type_spec")]
        found[text(name).removeprefix("$")] = types[-1] if types else ""
    return found


def option(parameter: str) -> str:
    """DryRun is --dry-run."""
    return "--" + "".join(f"-{char.lower()}" if char.isupper() else char for char in parameter).lstrip("-")


def test_the_script_has_no_syntax_error(root: Node) -> None:
    assert not root.has_error
    assert parse(b"if ($x { 1 }").has_error  # so that the line above says something


def test_the_options_are_those_of_the_bash_script(root: Node) -> None:
    ours = parameters(root)
    theirs = {
        action.option_strings[-1]: action.nargs
        for action in parser("download-ai-models.sh")._actions
        if action.option_strings
    }
    assert {option(name) for name in ours} - {"--names"} == set(theirs)
    assert ours["Names"] == "string[]"
    for name, kind in ours.items():
        if name != "Names":
            is_switch = theirs[option(name)] == 0
            assert kind == ("switch" if is_switch else "string"), name


def test_every_option_is_passed_on(root: Node) -> None:
    literals = {text(node).strip("'") for node in nodes(root, "verbatim_string_characters")}
    assert {option(name) for name in parameters(root)} - {"--names"} <= literals
    commands = [text(node) for node in nodes(root, "command")]
    assert any("start.py" in command and command.endswith("@options @Names") for command in commands)


def test_the_help_describes_every_parameter(root: Node) -> None:
    comments = "\n".join(text(node) for node in nodes(root, "comment"))
    for name in parameters(root):
        assert f".PARAMETER {name}\n" in comments


def test_it_is_plain_ascii() -> None:
    SCRIPT.read_text(encoding="ascii")  # Windows PowerShell reads a script without a mark in the machine's own encoding
