"""What a person at the terminal sees while images are built: the step, the time, and the end of the log if it fails."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from images.errors import ImagesError

_HEARTBEAT_SECONDS = 30.0
_TAIL_LINES = 30
_STEP = re.compile(r"^(?:\[\d+/\d+\] )?STEP (\d+)/(\d+): (.*)$|^#\d+ \[(?:\S+ )?\s*(\d+)/(\d+)\] (.*)$")
"""How buildah and docker (with --progress=plain) announce a step."""


def say(text: str) -> None:
    """Writes a line for people. Standard output is left to results."""
    print(text, file=sys.stderr, flush=True)


class Task:
    """Something that takes a while: says when it starts, each step, that it still runs, and how long it took."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = time.monotonic()
        self._spoke = self._started
        self._step = "starting"
        self._ended = threading.Event()
        self._pulse = threading.Thread(target=self._beat, daemon=True)

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._started

    def __enter__(self) -> Task:
        self._pulse.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._pulse.join()

    def step(self, text: str) -> None:
        """Says what is being done now."""
        self._step = text
        self._say(text)

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        say(f"[{self.seconds:5.0f} s] {self._name:<19} {text}")

    def _beat(self) -> None:
        while not self._ended.wait(1.0):
            if time.monotonic() - self._spoke >= _HEARTBEAT_SECONDS:
                self._say(f"still at: {self._step}")

    def run(self, command: Sequence[str | Path], *, log: Path, environ: Mapping[str, str]) -> None:
        """Runs a command with its output in `log`, saying the steps of a build as they come.

        Raises:
            ImagesError: If the command fails, with the end of its output.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with (
            log.open("w") as output,
            subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=dict(environ),
            ) as process,
        ):
            assert process.stdout is not None  # noqa: S101  for the type checker; it is a pipe
            for line in process.stdout:
                output.write(line)
                if step := shown_step(line):
                    self.step(step)
        if process.returncode != 0:
            tail = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
            raise ImagesError(
                "\n".join([f"{self._name}: {command[0]} failed with status {process.returncode}. It said:", *tail])
                + f"\nAll of it is in {log}"
            )


def shown_step(line: str) -> str | None:
    """A build's announcement of a step that takes time, in short; None for other lines."""
    match = _STEP.match(line.rstrip())
    if match is None:
        return None
    number, total, instruction = (group for group in match.groups() if group is not None)
    if not instruction.startswith(("RUN", "FROM", "COPY")):
        return None
    command = re.sub(r"--mount=\S+|\\", "", instruction)
    command = re.sub(r"\s+", " ", command)
    return f"step {number}/{total}: {command[:88]}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of columns as wide as they must be."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    )
