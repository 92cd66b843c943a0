"""An engine without a model, for tests of the runtime: it echoes, waits or fails as the request says.

`python -m support.toy_engine` serves it as a container would; variables TOY_* make it fail at the start.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aiservice_runtime import (
    Answer,
    FatalError,
    InvalidRequestError,
    Media,
    RequestBody,
    RuntimeSettings,
    Task,
    parse_settings,
    run_main,
    serve,
)


class ToyBody(RequestBody):
    """What the toy's tasks take."""

    file_field: ClassVar[str] = "audio"

    audio: Media
    say: str | None = None
    seconds: float = 0
    """How long to compute."""
    fail: bool = False
    refuse: bool = False


@dataclass
class ToyEngine:
    """Notes what it is asked to do; holds every run while `gate` is closed, and loading while `load_gate` is."""

    load_seconds: float = 0
    load_error: Exception | None = None
    release_error: Exception | None = None
    events: list[str] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)
    load_gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.load_gate.set()

    @property
    def tasks(self) -> Sequence[Task[Any, Any]]:
        return [
            Task("speech-to-text", "audio-second", ToyBody, self._prepare, self._run),
            Task("image-to-text", "image", ToyBody, self._prepare, self._run),
        ]

    def load(self) -> None:
        self._note("load")
        time.sleep(self.load_seconds)
        self.load_gate.wait(30)
        if self.load_error:
            raise self.load_error

    def warm_up(self) -> None:
        self._note("warm up")

    def release(self) -> None:
        self._note("release")
        if self.release_error:
            raise self.release_error

    def _prepare(self, body: ToyBody) -> ToyBody:
        if body.refuse:
            raise InvalidRequestError("The toy refuses.")
        return body

    def _run(self, batch: Sequence[ToyBody]) -> list[Answer]:
        [body] = batch
        self._note(f"run {body.say}")
        self.gate.wait(30)
        time.sleep(body.seconds)
        if body.fail:
            raise RuntimeError(f"the toy broke on {body.say}")
        answer = {"text": body.say, "bytes": len(body.audio), "first": body.audio[:1].hex()}
        return [Answer(answer, units=1.23456, tokens=len(body.say or ""))]

    def _note(self, event: str) -> None:
        self.events.append(event)
        self.threads.add(threading.current_thread().name)


def start() -> int:
    """Serves the toy as an image would."""
    settings = parse_settings(RuntimeSettings, sys.argv[1:], description="Serves a toy.")
    errors = {"fatal": FatalError("No toy in /models: put one there."), "crash": RuntimeError("boom\nsecond line")}
    engine = ToyEngine(
        load_seconds=float(os.environ.get("TOY_LOAD_SECONDS", "0")),
        load_error=errors.get(os.environ.get("TOY_LOAD_ERROR", "")),
    )
    return serve(engine, settings)


if __name__ == "__main__":
    run_main(start)
