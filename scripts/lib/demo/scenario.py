"""What the demo shows: one request a service through the gateway, the limits, the usage, and a table of it all."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.steps import StepError

REQUEST_SECONDS = 120.0


@dataclass(frozen=True)
class Answer:
    """One answer of the gateway: HTTP status, headers with lower-case names, parsed JSON body, seconds it took."""

    status: int
    headers: Mapping[str, str]
    body: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Result:
    """What came back: a line for the table, and a file for a look or a listen."""

    line: str
    file: str | None = None
    content: bytes = b""


@dataclass(frozen=True)
class Case:
    """A request to one service of the demo, and how its answer is read."""

    service: str
    """Name of the AIService."""
    task: str
    """Also the gateway's path."""
    weights: str
    """What kind of weights answers, for the table."""
    request: Mapping[str, Any]
    """The JSON body."""
    read: Callable[[Mapping[str, Any]], Result]
    """Checks the answer's body and returns what it holds; raises ValueError with what is wrong."""


@dataclass(frozen=True)
class Row:
    """One line of the final table."""

    task: str
    service: str
    model: str
    weights: str
    ready_after: str
    latency: str
    result: str


REAL, RANDOM = "real", "tiny, random"

NOTE = f"""\
Weights '{REAL}' are published models. Those that are '{RANDOM}' stand in for SDXL, XTTS v2 and BLIP-2, since the demo
asks no model hub: true layouts through the true libraries, on numbers that were drawn. Their answers mean nothing."""

SIDE = 64
"""Width and height of the demo's pictures: enough to see that they come, on a CPU."""


def cases(samples: Path) -> list[Case]:
    """Returns the demo's cases, two of which must give the samples' words back."""
    expected = json.loads((samples / "expected.json").read_text())
    sample = {
        task: base64.b64encode((samples / expected[task]["file"]).read_bytes()).decode()
        for task in ("speech-to-text", "image-to-text")
    }
    spoken = {"text": "Hello, this is a test", "language": "en", "seed": 7}
    drawing = {"size": f"{SIDE}x{SIDE}", "steps": 4, "seed": 7}
    return [
        Case(
            "speech-to-text",
            "speech-to-text",
            REAL,
            {"audio": sample["speech-to-text"]},
            lambda body: read_words(body, expected["speech-to-text"]["text"]),
        ),
        Case(
            "image-to-text",
            "image-to-text",
            REAL,
            {"image": sample["image-to-text"]},
            lambda body: read_words(body, expected["image-to-text"]["text"]),
        ),
        Case("blip-2", "image-to-text", RANDOM, {"image": sample["image-to-text"]}, read_caption),
        Case("xtts", "text-to-speech", RANDOM, spoken, lambda body: read_sound(body, "text-to-speech.wav")),
        Case(
            "stable-diffusion",
            "text-to-image",
            RANDOM,
            {"prompt": "A beautiful sunset", "style": "realistic", **drawing},
            lambda body: read_picture(body, "text-to-image.png"),
        ),
        Case(
            "stable-diffusion",
            "image-to-image",
            RANDOM,
            {"prompt": "The same in winter", "image": sample["image-to-text"], "strength": 0.5, **drawing},
            lambda body: read_picture(body, "image-to-image.png"),
        ),
    ]


def read_words(body: Mapping[str, Any], expected: str) -> Result:
    """Reads a text that must have exactly the expected words."""
    got = str(body.get("text", ""))
    if words(got) != words(expected):
        raise ValueError(f"returned other words:\n    want {expected!r}\n    got  {got!r}")
    return Result(" / ".join(got.split("\n")))


def read_caption(body: Mapping[str, Any]) -> Result:
    """Reads a caption, whatever it says."""
    caption = body.get("caption")
    if not isinstance(caption, str):
        raise ValueError(f"returned no caption: {json.dumps(body)[:200]}")
    return Result(f"a caption of {len(caption)} characters")


def read_sound(body: Mapping[str, Any], file: str) -> Result:
    """Reads a WAV that lasts a while."""
    content = base64.b64decode(str((body.get("audio") or {}).get("b64", "")))
    try:
        with wave.open(io.BytesIO(content)) as sound:
            seconds = sound.getnframes() / sound.getframerate()
    except (wave.Error, EOFError) as error:
        raise ValueError(f"returned no WAV: {error}") from error
    if seconds <= 0:
        raise ValueError("returned a WAV without sound")
    return Result(f"{seconds:.1f} s WAV in {file}", file, content)


def read_picture(body: Mapping[str, Any], file: str) -> Result:
    """Reads one PNG of SIDE x SIDE."""
    [entry] = body.get("images") or [{}]
    content = base64.b64decode(str(entry.get("b64", "")))
    # RFC 2083: signature, length and type of the first chunk, then width and height.
    if content[:8] != b"\x89PNG\r\n\x1a\n" or struct.unpack(">II", content[16:24]) != (SIDE, SIDE):
        raise ValueError(f"returned no PNG of {SIDE}x{SIDE}")
    return Result(f"{SIDE} x {SIDE} PNG in {file}", file, content)


def call(url: str, token: str, body: Mapping[str, Any] | None = None) -> Answer:
    """Sends one request with the token, POST when there is a body; error answers are answers too."""
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    started = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as response:
            status, headers, payload = response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        status, headers, payload = error.code, error.headers, error.read()
    seconds = time.monotonic() - started
    return Answer(status, {name.lower(): value for name, value in headers.items()}, json.loads(payload), seconds)


def words(text: str) -> list[str]:
    """Returns the words of a text, without case and punctuation, as a listener compares them."""
    return re.findall(r"[\w']+", text.lower())


def run_case(gateway: str, token: str, case: Case, output: Path) -> tuple[Answer, Result]:
    """Sends the case's request, keeps the answer and what is in it below `output`, and returns both.

    Raises:
        StepError: Another status came back, or an answer that does not hold what it must; the message says which.
    """
    answer = call(f"{gateway}/api/{case.task}?service={case.service}", token, case.request)
    kept = f"{case.service}.{case.task}.json"
    (output / kept).write_text(json.dumps(answer.body, indent=2, ensure_ascii=False) + "\n")
    if answer.status != 200:
        raise StepError("requests", f"{case.task} answered {answer.status}: {json.dumps(answer.body)}")
    try:
        result = case.read(answer.body)
    except ValueError as error:
        raise StepError("requests", f"{case.task} {error}") from error
    if result.file is not None:
        (output / result.file).write_bytes(result.content)
    return answer, result


def ready_after(service: Mapping[str, Any]) -> float:
    """Returns the seconds that an AIService's start took: caching the model, finding a node, loading."""
    return float(sum(service["status"]["timings"].values()))


def row(case: Case, service: Mapping[str, Any], latencies: Sequence[float], result: Result) -> Row:
    """Builds the table line of one case from the service's object and what came back."""
    return Row(
        task=case.task,
        service=case.service,
        model=str(service["status"]["model"]),
        weights=case.weights,
        ready_after=f"{ready_after(service):.0f} s",
        latency=", then ".join(f"{seconds:.2f} s" for seconds in latencies),
        result=result.line,
    )


def table(rows: Sequence[Row]) -> str:
    """Formats the rows with aligned columns under a heading; the last column is not cut."""
    heading = Row("TASK", "SERVICE", "MODEL", "WEIGHTS", "READY AFTER", "LATENCY", "RESULT")
    cells = [
        (line.task, line.service, shorten(line.model, 44), line.weights, line.ready_after, line.latency, line.result)
        for line in (heading, *rows)
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(6)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]) for line in cells
    )


def shorten(text: str, width: int) -> str:
    """Cuts the middle out of a text that is longer than `width` characters."""
    if len(text) <= width:
        return text
    half = (width - 1) // 2
    return f"{text[:half]}…{text[-(width - 1 - half) :]}"


def limits(answer: Answer) -> str:
    """Says the tenant's rate-limit state in one line, from an answer's headers."""
    names = ("limit", "remaining", "reset")
    missing = [name for name in names if f"x-ratelimit-{name}" not in answer.headers]
    if missing:
        raise StepError("requests", f"the gateway's answer lacks the header x-ratelimit-{missing[0]}")
    limit, remaining, reset = (answer.headers[f"x-ratelimit-{name}"] for name in names)
    return f"{remaining} of {limit} requests left in this hour; the oldest one counts for {reset} s more"
