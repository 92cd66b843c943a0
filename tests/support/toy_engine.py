"""An engine without a model, for tests of the runtime: it echoes, waits or fails as the request says.

`python -m support.toy_engine` serves it as a container would; variables TOY_* make it fail at the start.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from aiservice_runtime import (
    Answer,
    AnswerBody,
    Check,
    Described,
    Engine,
    Example,
    Fact,
    FatalError,
    Fault,
    FileBody,
    FormList,
    InvalidRequestError,
    Media,
    Memory,
    Prepared,
    Raw,
    RuntimeSettings,
    Shape,
    Task,
    parse_settings,
    run_main,
    serve,
)


class Tag(Described):
    """Something with a name."""

    name: str


class ToyBody(FileBody):
    """What the toy's tasks take."""

    file_field: ClassVar[str] = "audio"

    audio: Media
    mask: Media | None = None
    say: str | None = None
    seconds: float = 0
    """How long to compute, in steps of a hundredth."""
    n: int = 1
    """How many results."""
    group: str | None = None
    """What it can be computed together with."""
    fail: bool = False
    refuse: bool = False
    fits: int = 1000
    """How many pieces the toy has memory for; 0: not even for this one."""
    lose: bool = False
    """Whether the device stops working."""
    short: bool = False
    """Whether there is no result for it."""
    raw: bool = False
    stream: int = 0
    """How many chunks to stream."""
    known: int | None = None
    """Tokens of the stream that are known before it begins."""
    hold: bool = False
    """Whether the stream waits after its first chunk, for the engine's `hold`."""
    words: bool = True
    """Whether the streamed format can tell of a failure."""
    tags: Annotated[list[Tag], FormList] = Field([], max_length=2)
    format: Literal["low", "loud"] = "low"
    """Of what is said, where that is the answer by itself."""
    only: bool = False
    """Whether the answer is what is said by itself."""

    @property
    def file_asked_by(self) -> str | None:
        return "only" if self.only else None

    @property
    def no_file(self) -> str | None:
        return "n is not 1: set it to 1, or accept application/json." if self.n > 1 else None


class ToyAnswer(AnswerBody):
    """What the toy says."""

    text: str | list[str] | None
    """What was asked for."""
    bytes: int
    first: str
    mask: int | None = None
    """Its size; only with a mask."""


FILES = {"low": "audio/low", "loud": "audio/loud; level=11"}
FACTS = (Fact("Format", "string", "Of what is said."), Fact("Said", "string", "What is said."))
SHAPES = (
    Shape("application/json", body=ToyAnswer),
    Shape("text/toy", "With raw."),
    Shape("text/plain; charset=utf-8", "With stream: lines."),
    *(Shape(media_type, "By itself.") for media_type in FILES.values()),
)
EXAMPLES = (
    Example(
        "one",
        "One word",
        {"audio": "YWJj", "say": "hello", "seconds": 0.01},
        {
            "text": "hello",
            "bytes": 3,
            "first": "61",
            "usage": {"units": 1.235, "unit": "image", "tokens": 5, "cost": None},
        },
    ),
    Example(
        "masked",
        "Two files and a list",
        {"audio": "YWJj", "mask": "YWI=", "say": "x", "tags": [{"name": "a"}]},
        {
            "text": "x",
            "bytes": 3,
            "first": "61",
            "mask": 2,
            "usage": {"units": 1.235, "unit": "image", "tokens": 1, "cost": 0.5},
        },
    ),
    Example("raw", "No JSON", {"audio": "YWJj", "say": "x", "raw": True}, "x", "text/toy"),
    Example("lines", "Streamed", {"audio": "YWJj", "say": "x", "stream": 1}, "x 0\n2.0 1 None\n", "text/plain"),
)


FILE_EXAMPLES = (Example("low", "By itself", {"audio": "YWJj", "say": "x"}, "x", "audio/low"),)


class ToyMemoryError(Exception):
    """The toy's device has no room."""


class ToyDeviceError(Exception):
    """The toy's device is lost."""


@dataclass
class ToyStream:
    """Writes one line a chunk, and the usage last."""

    body: ToyBody
    media_type: str = "text/plain; charset=utf-8"
    units: float = 2.0
    tokens: int = 0

    def encode(self, chunk: Any) -> bytes:
        self.tokens += 1
        return f"{chunk}\n".encode()

    def end(self, usage: dict[str, Any]) -> bytes:
        return f"{usage['units']} {usage['tokens']} {usage['cost']}\n".encode()

    def failed(self, sentence: str) -> bytes | None:
        return f"failed: {sentence}\n".encode() if self.body.words else None


@dataclass
class ToyEngine(Engine):
    """Notes what it is asked to do; holds runs, loading and preparing while their gate is closed."""

    max_batch: int = 1
    load_seconds: float = 0
    load_error: Exception | None = None
    release_error: Exception | None = None
    sleep_error: Exception | None = None
    wake_error: Exception | None = None
    recover_error: Exception | None = None
    stream_errors: list[Exception] = field(default_factory=list)
    """What the next streams fail with before their first chunk, one each."""
    exits: bool = False
    """Whether computing ends the thread, as sys.exit() in a library does."""
    events: list[str] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)
    load_gate: threading.Event = field(default_factory=threading.Event)
    hold: threading.Event = field(default_factory=threading.Event)
    prepare_gate: threading.Event = field(default_factory=threading.Event)
    preparing: set[str] = field(default_factory=set)
    """Threads that prepare a request now."""
    held: Memory | None = None

    def __post_init__(self) -> None:
        self.gate.set()
        self.load_gate.set()
        self.prepare_gate.set()

    @property
    def tasks(self) -> Sequence[Task[Any, Any, Any]]:
        return [
            Task(
                name,
                unit,
                ToyBody,
                self._prepare,
                self._run,
                self._stream,
                self.max_batch,
                SHAPES,
                files,
                FACTS,
                EXAMPLES + (FILE_EXAMPLES if files else ()),
            )
            for name, unit, files in (("speech-to-text", "audio-second", {}), ("image-to-text", "image", FILES))
        ]

    def load(self) -> None:
        self._note("load")
        time.sleep(self.load_seconds)
        self.load_gate.wait(30)
        if self.load_error:
            raise self.load_error

    def warm_up(self) -> None:
        self._note("warm up")

    def sleep(self) -> None:
        self._note("sleep")
        if self.sleep_error:
            raise self.sleep_error

    def wake(self) -> None:
        self._note("wake")
        if self.wake_error:
            raise self.wake_error

    def release(self) -> None:
        self._note("release")
        if self.release_error:
            raise self.release_error

    def fault(self, error: Exception) -> Fault:
        if isinstance(error, ToyMemoryError):
            return Fault.OUT_OF_MEMORY
        return Fault.DEVICE if isinstance(error, ToyDeviceError) else Fault.REQUEST

    def recover(self) -> None:
        self._note("recover")
        if self.recover_error:
            raise self.recover_error

    def memory(self) -> Memory | None:
        return self.held

    def _prepare(self, body: ToyBody) -> Prepared[ToyBody, str]:
        self.preparing.add(threading.current_thread().name)
        self.prepare_gate.wait(30)
        self.preparing.discard(threading.current_thread().name)
        if body.refuse:
            raise InvalidRequestError("The toy refuses.")

        def finish(results: Sequence[str]) -> Answer:
            if body.file is not None:
                told = {"Format": body.file, "Said": results[0]}
                return Answer({}, units=1, tokens=1, raw=Raw(results[0].encode(), FILES[body.file], told))
            if body.raw:
                return Answer({}, units=1, tokens=1, raw=Raw(results[0].encode(), "text/toy"))
            said = results[0] if body.n == 1 else list(results)
            answer = {"text": said, "bytes": len(body.audio), "first": body.audio[:1].hex()}
            if body.mask is not None:
                answer["mask"] = len(body.mask)
            return Answer(answer, units=1.23456, tokens=len(body.say or ""))

        if not body.stream:
            return Prepared([body] * body.n, finish, body.group)
        facts = {"Said": body.say or ""} if body.file else {}
        return Prepared([body], finish, body.group, ToyStream(body), tokens=body.known, facts=facts)

    def _run(self, batch: Sequence[ToyBody], check: Check) -> list[str | None]:
        self._note("run " + " + ".join(str(body.say) for body in batch))
        self._compute(batch, check)
        return [body.say for body in batch if not body.short]

    def _stream(self, body: ToyBody, check: Check) -> Iterator[str]:
        self._note(f"stream {body.say}")
        if self.stream_errors:
            raise self.stream_errors.pop(0)
        for number in range(body.stream):
            self.gate.wait(30)
            yield f"{body.say} {number}"
            time.sleep(body.seconds)
            if body.hold:
                self.hold.wait(30)
        self._compute([body], check)

    def _compute(self, batch: Sequence[ToyBody], check: Check) -> None:
        self.gate.wait(30)
        if self.exits:
            sys.exit(3)
        until = time.monotonic() + max(body.seconds for body in batch)
        while time.monotonic() < until:
            check()
            time.sleep(0.01)
        check()
        if len(batch) > min(body.fits for body in batch):
            raise ToyMemoryError
        for body in batch:
            if body.lose:
                raise ToyDeviceError("no answer from the toy")
            if body.fail:
                raise RuntimeError(f"the toy broke on {body.say}")

    def _note(self, event: str) -> None:
        self.events.append(event)
        self.threads.add(threading.current_thread().name)


def start() -> int:
    """Serves the toy as an image would."""
    settings = parse_settings(RuntimeSettings, sys.argv[1:], description="Serves a toy.")
    errors = {"fatal": FatalError("No toy in /models: put one there."), "crash": RuntimeError("boom\nsecond line")}
    engine = ToyEngine(
        max_batch=int(os.environ.get("TOY_MAX_BATCH", "1")),
        load_seconds=float(os.environ.get("TOY_LOAD_SECONDS", "0")),
        load_error=errors.get(os.environ.get("TOY_LOAD_ERROR", "")),
        recover_error=errors.get(os.environ.get("TOY_RECOVER_ERROR", "")),
    )
    return serve(engine, settings)


if __name__ == "__main__":
    run_main(start)
