"""The parts of the program behind scripts/download-ai-models that need no Hub."""

from __future__ import annotations

import ast
import io
import sys
from pathlib import Path

import pytest
import yaml

from ai_models import catalog, start
from ai_models.arguments import Options, parse, parser, spelled
from ai_models.display import Display, duration, progress_line
from ai_models.listing import aligned

EXAMPLES = Path(__file__).parents[3] / "examples" / "gpu"


def test_every_task_has_models_and_every_model_a_folder_of_its_own() -> None:
    names = {model.name for model in catalog.MODELS}
    assert {name for models in catalog.DEFAULTS.values() for name in models} <= names
    folders = [part.folder for model in catalog.MODELS for part in model.parts]
    for folder in folders:
        inside = [other for other in folders if other != folder and other.startswith(f"{folder}/")]
        assert not inside  # the one would be replaced with the other
    for model in catalog.MODELS:
        for part in model.parts:
            assert f"{part.folder}/".startswith(f"{model.mount}/")
            assert part.folder.split("/")[0] in model.tasks


def test_names_choose_each_model_once() -> None:
    def names(*wanted: str) -> list[str]:
        return [model.name for model in catalog.choose(wanted)]

    assert names() == ["stable-diffusion-xl", "xtts-v2", "whisper-large-v3", "blip-2", "paddleocr"]
    assert names("image-to-image", "text-to-image", "stable-diffusion-xl") == ["stable-diffusion-xl"]
    assert names("faster-whisper-large-v3") == ["faster-whisper-large-v3"]
    assert names("image-to-text", "speech-to-text") == ["whisper-large-v3", "blip-2", "paddleocr"]
    with pytest.raises(ValueError, match="no task or model is called text-to-video: choose from text-to-image,"):
        names("text-to-video", "text-to-image")


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("stable-diffusion-xl", "stable-diffusion-xl"),
        ("xtts-v2", "xtts"),
        ("whisper-large-v3", "whisper-large-v3"),
        ("blip-2", "blip-2"),
    ],
)
def test_the_files_are_those_of_the_manifests_for_kubernetes(name: str, example: str) -> None:
    documents = list(yaml.safe_load_all((EXAMPLES / f"{example}.yaml").read_text()))
    specs = [document["spec"] for document in documents]
    hub = next(spec.get("huggingFace") or spec["model"]["huggingFace"] for spec in specs)
    (part,) = next(model for model in catalog.MODELS if model.name == name).parts
    assert part.repo == hub["repo"]
    assert [glob for glob in part.include if glob != "LICENSE*"] == hub["include"]
    assert list(part.exclude) == hub.get("exclude", [])


def test_options() -> None:
    assert parse([]) == Options((), Path("models"), dry_run=False, accept_licences=False, verify=False)
    found = parse(["speech-to-text", "--folder", "a b", "--verify", "blip-2"])
    assert found == Options(
        ("speech-to-text", "blip-2"), Path("a b"), dry_run=False, accept_licences=False, verify=True
    )


@pytest.mark.parametrize("arguments", [["text-to-video"], ["--dry"], ["--folder"]])
def test_what_is_wrong_with_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_help_names_every_task_model_and_exit_status() -> None:
    text = parser("scripts/download-ai-models.sh").format_help()
    for name in (*catalog.names(), "HF_TOKEN", "HF_ENDPOINT", "CPML", "--accept-licences", "exit status"):
        assert name in text
    assert max(len(line) for line in text.splitlines()) <= 120


def test_options_as_powershell_spells_them() -> None:
    text = parser("download-ai-models.ps1").format_help()
    assert "-AcceptLicences" in text
    assert "--" not in text
    assert spelled("a--b --dry-run", "x.ps1") == "a--b -DryRun"
    assert spelled("--dry-run", "x.sh") == "--dry-run"


def test_times() -> None:
    assert [duration(seconds) for seconds in (0, 42, 730, 3730)] == ["0:00", "0:42", "12:10", "1:02:10"]


def test_progress_has_speed_and_time_left() -> None:
    fields = {"bytesDone": 250_000_000, "bytesTotal": 1_000_000_000, "bytesPerSecond": 5_000_000, "file": "a"}
    line = progress_line("whisper (2 of 5)", fields, later=1_500_000_000)
    assert line == "whisper (2 of 5):  25 %, 250.0 MB of 1.0 GB, 5.0 MB/s, 2:30 left, 7:30 for all"
    assert progress_line("w", {**fields, "bytesPerSecond": 0}, later=0) == "w:  25 %, 250.0 MB of 1.0 GB"
    assert progress_line("w", {**fields, "note": "busy; trying again in 3 s"}, 0) == "w: busy; trying again in 3 s"
    assert progress_line("w", {**fields, "bytesTotal": None}, 0) == "w: asking for the list of files"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal = _Terminal()
    display = Display(terminal, lambda: 0.0)
    display.progress("a long line that says much about little things")
    display.progress("short")
    display.say("done")
    assert terminal.getvalue().split("\r") == [
        "",
        "a long line that says much about little",
        "short".ljust(39),
        " " * 5,
        "done\n",
    ]


def test_a_log_has_a_line_now_and_then() -> None:
    log, now = io.StringIO(), [0.0]
    display = Display(log, lambda: now[0])
    for second in range(25):
        now[0] = float(second)
        display.progress(f"second {second}")
    assert log.getvalue() == "second 0\nsecond 10\nsecond 20\n"


def test_columns() -> None:
    assert aligned([("FILE", "SIZE", "TO FETCH"), ("a.bin", "1.0 GB", "-")]) == (
        "FILE     SIZE  TO FETCH\na.bin  1.0 GB         -"
    )


def test_another_python_or_other_packages_are_another_environment() -> None:
    names = {
        start.environment_name(b"a", "3.11.7"),
        start.environment_name(b"b", "3.11.7"),
        start.environment_name(b"a", "3.12.1"),
    }
    assert len(names) == 3
    assert [start.is_supported(version) for version in ((3, 10), (3, 11), (3, 13), (3, 14))] == [
        False,
        True,
        True,
        False,
    ]


def test_an_environment_by_uv_and_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = str(tmp_path / "bin/python")
    make, install = start.commands("/bin/uv", tmp_path)
    assert make == ["/bin/uv", "venv", "--quiet", "--no-project", "--python", sys.executable, str(tmp_path)]
    assert install[:6] == ["/bin/uv", "pip", "install", "--quiet", "--python", python]
    make, install = start.commands(None, tmp_path)
    assert make == [sys.executable, "-m", "venv", str(tmp_path)]
    assert install[:4] == [python, "-m", "pip", "install"]
    assert "--require-hashes" in install
    monkeypatch.setattr(sys, "version_info", (3, 15, 0))
    assert "3.11" in start.commands("/bin/uv", tmp_path)[0]
    with pytest.raises(SystemExit, match=r"install Python 3\.11, 3\.12 or 3\.13, or uv"):
        start.commands(None, tmp_path)


UNIX_ONLY = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}
UNIX_ONLY_OF_OS = {
    f"os.{name}"
    for name in ("chown", "fchmod", "fork", "geteuid", "getuid", "killpg", "posix_fallocate", "statvfs", "sync")
}


@pytest.mark.parametrize("folder", ["scripts/lib/ai_models", "inference-images/model-downloader/src"])
def test_nothing_is_used_that_only_unix_has(folder: str) -> None:
    found = set()
    for path in (EXAMPLES.parents[1] / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {(path.name, alias.name) for alias in node.names if alias.name in UNIX_ONLY}
            elif isinstance(node, ast.ImportFrom) and node.module in UNIX_ONLY:
                found.add((path.name, node.module))
            elif isinstance(node, ast.Attribute) and ast.unparse(node) in UNIX_ONLY_OF_OS:
                found.add((path.name, ast.unparse(node)))
    assert not found
