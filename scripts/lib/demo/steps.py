"""Runs the demo's commands: a log file each, progress while they work, and a failure that says where to look."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRESS_SECONDS = 10.0
TAIL_LINES = 12


class StepError(Exception):
    """A step of the demo failed.

    Attributes:
        step: The step's name.
        reason: One or a few lines that say what went wrong.
        log: The file to read, if there is one.
    """

    def __init__(self, step: str, reason: str, log: Path | None = None) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason
        self.log = log


class Console:
    """Prints timed lines from several threads without mixing them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._lock = threading.Lock()

    def say(self, step: str, text: str) -> None:
        """Prints one line: elapsed time, step, text."""
        minutes, seconds = divmod(int(self._clock() - self._started), 60)
        with self._lock:
            print(f"[{minutes:2d}:{seconds:02d}] {step:<10} {text[:160]}", flush=True)


class Runner:
    """Runs commands of named steps with their output in `logs/<step>.log`."""

    def __init__(self, root: Path, logs: Path, console: Console) -> None:
        self.root = root
        self.logs = logs
        self.console = console
        logs.mkdir(parents=True, exist_ok=True)

    def run(
        self,
        step: str,
        command: Sequence[str | Path],
        *,
        timeout: float,
        environment: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> None:
        """Runs a command to its end, showing the newest line of its log while it works.

        Args:
            step: Name of the step; also of the log file, which grows over the step's commands.
            command: Program and arguments.
            timeout: Seconds after which the command is killed and the step fails.
            environment: The whole environment, or None for this process' own.
            stdin: Text given on standard input.

        Raises:
            StepError: The command failed or took too long.
        """
        log = self.logs / f"{step}.log"
        words = [str(word) for word in command]
        with log.open("a+") as output:
            output.write(f"$ {' '.join(words)}\n")
            output.flush()
            begun = output.tell()
            process = subprocess.Popen(
                words,
                cwd=self.root,
                env=environment,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # so that what it started ends with it
            )
            if stdin is not None and process.stdin is not None:
                process.stdin.write(stdin)
                process.stdin.close()
            try:
                code = self._follow(step, process, log, begun, timeout)
            except KeyboardInterrupt:
                end_group(process)
                raise
        if code is None:
            raise StepError(step, f"'{words[0]}' did not end within {timeout:.0f} s", log)
        if code != 0:
            raise StepError(step, f"'{' '.join(words)[:120]}' exited with {code}:\n{tail(log)}", log)

    def _follow(self, step: str, process: subprocess.Popen[str], log: Path, begun: int, timeout: float) -> int | None:
        """Waits for the process; returns its exit code, or None after killing it at the timeout."""
        deadline = time.monotonic() + timeout
        shown = ""
        while True:
            try:
                return process.wait(min(PROGRESS_SECONDS, max(deadline - time.monotonic(), 0.1)))
            except subprocess.TimeoutExpired:
                if time.monotonic() >= deadline:
                    end_group(process)
                    return None
                newest = last_line(log, begun)
                if newest and newest != shown:
                    self.console.say(step, newest)
                    shown = newest

    def capture(self, step: str, command: Sequence[str | Path], *, timeout: float = 60) -> str:
        """Runs a short command and returns what it printed.

        Raises:
            StepError: The command failed or took too long; its error output is the reason.
        """
        words = [str(word) for word in command]
        try:
            done = subprocess.run(words, cwd=self.root, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise StepError(step, f"'{' '.join(words)[:120]}' did not end within {timeout:.0f} s") from None
        if done.returncode != 0:
            raise StepError(step, f"'{' '.join(words)[:120]}' exited with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[None]:
        """Announces a step and how long it took."""
        self.console.say(name, what)
        started = time.monotonic()
        yield
        self.console.say(name, f"done after {time.monotonic() - started:.0f} s")


def end_group(process: subprocess.Popen[str]) -> None:
    """Ends a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(log: Path, begun: int) -> str:
    """Returns the newest non-empty line written to the log after the offset."""
    with log.open("rb") as stream:
        stream.seek(max(begun, log.stat().st_size - 4096))
        lines = stream.read().decode(errors="replace").replace("\r", "\n").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def tail(log: Path) -> str:
    """Returns the log's last lines, indented."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])


def together(*jobs: Callable[[], None]) -> None:
    """Runs jobs in threads; the first failure is raised once the others have ended."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(job) for job in jobs]
        wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((future for future in futures if future.done() and future.exception()), None)
        if failed is not None:
            print(f"Failed: {failed.exception()}\nWaiting for the step beside it to end.", file=sys.stderr)
    for future in futures:
        future.result()
