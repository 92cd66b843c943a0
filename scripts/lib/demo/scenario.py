"""What the demo shows: one request a service through the gateway, the limits, the usage, and a table of it all."""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
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
class Case:
    """A service of the demo, what is sent to it, and what must come back.

    Attributes:
        service: Name of the AIService.
        task: Its task, also the gateway's path.
        field: The request's field that carries the sample.
        sample: File below the samples' folder.
        expected: The text that the answer's `text` must hold, word for word.
    """

    service: str
    task: str
    field: str
    sample: str
    expected: str


@dataclass(frozen=True)
class Row:
    """One line of the final table."""

    service: str
    model: str
    ready_after: str
    latency: str
    result: str


def cases(samples: Path) -> list[Case]:
    """Returns the demo's cases; the expected texts come with the samples."""
    expected = json.loads((samples / "expected.json").read_text())
    return [
        Case(task, task, field, expected[task]["file"], expected[task]["text"])
        for task, field in (("speech-to-text", "audio"), ("image-to-text", "image"))
    ]


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


def check(case: Case, answer: Answer) -> None:
    """Fails unless the answer carries exactly the expected words.

    Raises:
        StepError: Another status or other words came back; the message holds both.
    """
    if answer.status != 200:
        raise StepError("requests", f"{case.task} answered {answer.status}: {json.dumps(answer.body)}")
    got = str(answer.body.get("text", ""))
    if words(got) != words(case.expected):
        raise StepError("requests", f"{case.task} returned other words:\n    want {case.expected!r}\n    got  {got!r}")


def run_case(gateway: str, token: str, samples: Path, case: Case, output: Path) -> Answer:
    """Sends the case's sample, keeps the answer in `output/<service>.json`, checks and returns it."""
    sample = base64.b64encode((samples / case.sample).read_bytes()).decode()
    answer = call(f"{gateway}/api/{case.task}", token, {case.field: sample})
    (output / f"{case.service}.json").write_text(json.dumps(answer.body, indent=2, ensure_ascii=False) + "\n")
    check(case, answer)
    return answer


def ready_after(service: Mapping[str, Any]) -> float:
    """Returns the seconds that an AIService's start took: caching the model, finding a node, loading."""
    return float(sum(service["status"]["timings"].values()))


def row(case: Case, service: Mapping[str, Any], first: Answer, second: Answer) -> Row:
    """Builds the table line of one service from its object and two answers."""
    return Row(
        service=case.service,
        model=str(service["status"]["model"]),
        ready_after=f"{ready_after(service):.0f} s",
        latency=f"{first.seconds:.2f} s, then {second.seconds:.2f} s",
        result=" / ".join(str(first.body["text"]).split("\n")),
    )


def table(rows: Sequence[Row]) -> str:
    """Formats the rows with aligned columns under a heading; the last column is not cut."""
    heading = Row("SERVICE", "MODEL", "READY AFTER", "LATENCY", "RESULT")
    cells = [
        (line.service, shorten(line.model, 44), line.ready_after, line.latency, line.result)
        for line in (heading, *rows)
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    return "\n".join(
        "  ".join([*(line[column].ljust(widths[column]) for column in range(4)), line[4]]) for line in cells
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
