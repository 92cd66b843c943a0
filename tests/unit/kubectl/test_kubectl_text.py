"""Tables, colours, times, and what kubectl's errors become."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from importlib import import_module

import pytest

from aiservice_kubectl import kubectl as kubectl_module
from aiservice_kubectl.arguments import parser
from aiservice_kubectl.errors import ClusterError, Exit, RefusedError
from aiservice_kubectl.explain.advice import ADVICE, DOWNLOAD_ADVICE, advice
from aiservice_kubectl.lookup import unknown
from aiservice_kubectl.text import Colour, Paint, age, paragraph, plain, sentence, since, table
from support.cluster import REPOSITORY
from support.operator_objects import NOW


def test_columns_align_whatever_their_colour() -> None:
    paint = Paint(on=True)
    lines = table(["NAME", "READY", "URL"], [["a", paint.state("True"), "x"], ["longer", paint.state("False"), ""]])
    shown = [plain(line) for line in lines.splitlines()]
    assert shown == ["NAME     READY   URL", "a        True    x", "longer   False   -"]


def test_nothing_is_coloured_where_nobody_looks() -> None:
    assert Paint(on=False)("text", Colour.BAD) == "text"
    assert Paint(on=True)("text", Colour.BAD) == "\x1b[31mtext\x1b[0m"


def test_what_containers_printed_does_not_command_the_terminal() -> None:
    assert plain("\x1b[2Jgone\x07\x1b]0;title\x07 \x9b31mred") == "gone]0;title 31mred"


@pytest.mark.parametrize(
    ("span", "short", "long"),
    [
        (timedelta(seconds=-5), "0s", "for 0 seconds"),
        (timedelta(seconds=1), "1s", "for a second"),
        (timedelta(seconds=119), "119s", "for 119 seconds"),
        (timedelta(minutes=2), "2m", "for 2 minutes"),
        (timedelta(hours=5), "5h", "for 5 hours"),
        (timedelta(days=40), "40d", "for 40 days"),
    ],
)
def test_times_for_people(span: timedelta, short: str, long: str) -> None:
    assert age(span) == short
    assert since(NOW, NOW - span) == long


def test_prose_is_wrapped_and_addresses_stay_whole() -> None:
    text = "see http://models.example.com/a-very-long-path/that-must-not-be-cut for more\nsecond line"
    assert paragraph(text, 40, "  ").splitlines() == [
        "  see",
        "  http://models.example.com/a-very-long-path/that-must-not-be-cut",
        "  for more",
        "  second line",
    ]


@pytest.mark.parametrize(("text", "expected"), [("", ""), ("no node", "No node."), ("What? Why?", "What? Why?")])
def test_messages_become_sentences(text: str, expected: str) -> None:
    assert sentence(text) == expected


@pytest.mark.parametrize(
    ("said", "reason", "message"),
    [
        (
            'Error from server (NotFound): namespaces "x" not found\n',
            "NotFound",
            'namespaces "x" not found',
        ),
        (
            "Error from server (Forbidden): nodes is forbidden: User cannot list",
            "Forbidden",
            "nodes is forbidden: User cannot list",
        ),
        (
            'Warning: old API\nThe AIService "w" is invalid: \n* spec: set exactly one\n* spec.replicas: too many',
            "Invalid",
            "\n* spec: set exactly one\n* spec.replicas: too many",
        ),
        (
            'Error from server (BadRequest): error when creating "STDIN": strict decoding error: unknown field "a.b"',
            "BadRequest",
            'unknown field "a.b"',
        ),
    ],
)
def test_what_the_api_server_said(said: str, reason: str, message: str) -> None:
    error = kubectl_module.error(said)
    assert isinstance(error, RefusedError)
    assert (error.reason, str(error)) == (reason, message)


def test_a_cluster_that_does_not_answer_has_not_refused() -> None:
    error = kubectl_module.error("error: context was not found for specified context: dev")
    assert isinstance(error, ClusterError)
    assert not isinstance(error, RefusedError)
    assert str(error).endswith("kubectl says: context was not found for specified context: dev")
    assert error.code == Exit.CLUSTER


def test_a_name_that_nothing_has() -> None:
    assert unknown("AIService", "wisper", "team", ["whisper", "sdxl"]).endswith("did you mean whisper?")
    assert unknown("AIService", "x", "team", ["whisper", "sdxl"]).endswith("there are: sdxl, whisper")
    assert "status -A" in unknown("AIService", "x", "team", [])


def test_advice_has_no_hole_in_it() -> None:
    where = {"name": "whisper", "namespace": "team", "cache": "mc-1"}
    for download, reason in [*((False, reason) for reason in ADVICE), *((True, reason) for reason in DOWNLOAD_ADVICE)]:
        lines = advice(reason, **where, download=download)
        assert lines
        assert not any("{" in line for line in lines), lines
    assert advice("SomethingNew", **where, download=False) == ()
    assert advice("Unauthorized", **where, download=True) == advice("Unauthorized", **where, download=False)


def test_the_entry_point_is_there() -> None:
    project = tomllib.loads((REPOSITORY / "operator/pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["kubectl-ais"].partition(":")
    assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("command", [["status"], ["why", "x"], ["logs", "x"], ["cache", "ls"], ["plan", "-f", "x"]])
def test_every_command_takes_the_flags_of_kubectl(command: list[str]) -> None:
    options = parser().parse_args([*command, "-n", "team", "--context", "dev", "--kubeconfig", "k"])
    assert (options.namespace, options.context, options.kubeconfig) == ("team", "dev", "k")


@pytest.mark.parametrize("command", [[], ["why"], ["plan"], ["logs", "x", "-f", "-p"], ["status", "-o", "yaml"]])
def test_a_wrong_command_line_is_told(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parser().parse_args(command)
    assert exit_info.value.code == Exit.USAGE
    assert "usage: kubectl ais" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", "status", "why", "logs", "cache ls", "plan"])
def test_help_tells_the_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parser().parse_args([*command.split(), "--help"])
    assert exit_info.value.code == 0
    assert "exit codes: 0 done" in capsys.readouterr().out
