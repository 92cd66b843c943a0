"""text-to-speech: how much of the whole time passes before the first sound of a streamed answer, and cold starts.

The models are tiny, with random weights, on a CPU. `scripts/bench speech-synthesis` runs it; about two minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import cold_start
from bench.figures import Spread, spread
from bench.report import machine, publish, table
from bench.serving import HOST, Body, Server, WrongAnswerError, as_json, service
from weights import tiny_speech

TASK = "text-to-speech"
WARM_UP = 2
SENTENCE_TOKENS = 200
"""Of audio, after which the tiny XTTS ends a sentence: some 9 s, as long as a long sentence of the real one."""
SENTENCES = " ".join(
    [
        "The boxes arrived on Monday morning.",
        "Two of them were open, and one was empty.",
        "Please ask the driver what happened to the rest.",
        "We are going to need them before the end of the week.",
        "Thank you for looking into it.",
    ]
)

METHOD = (
    "Tiny models with random weights in the true layouts, fp32 on the CPU, streamed as pcm over a new connection on "
    f"loopback, {{rounds}} rounds. One sentence: XTTS, which ends it after {SENTENCE_TOKENS} tokens of audio since "
    "random weights do not know an end. Five sentences: VITS, which makes a sentence in one go, and XTTS. First sound: "
    "from sending the request to the first byte of the body; whole: to the last; both the client's, median "
    "(lowest-highest). How long a real model on a GPU takes is not measured; the share is what streaming decides. "
)


@dataclass(frozen=True)
class Spoken:
    """One streamed answer: seconds from the request to the first byte of its body and to the last."""

    first: float
    whole: float
    size: int


@dataclass(frozen=True)
class Figures:
    """Of one model and text."""

    name: str
    first: Spread
    whole: Spread
    share: Spread
    """The first sound's part of the whole, in percent."""


def speak(server: Server, body: Body) -> Spoken:
    """One request.

    Raises:
        WrongAnswerError: its answer is no sound.
    """
    with contextlib.closing(http.client.HTTPConnection(HOST, server.port, timeout=600)) as connection:
        begin = time.perf_counter()
        connection.request("POST", server.path, body.content, {"Content-Type": body.media_type})
        answer = connection.getresponse()
        first_byte = answer.read(1)
        first = time.perf_counter() - begin
        size = len(first_byte) + len(answer.read())
        whole = time.perf_counter() - begin
    if answer.status != 200 or size < 1000:
        raise WrongAnswerError(f"{server.name} answered {answer.status} with {size} bytes")
    return Spoken(first, whole, size)


@contextlib.contextmanager
def cases(folder: Path, models: Path) -> Iterator[list[tuple[str, Server, Body]]]:
    """The services, up at the same time, and what each is asked."""
    tiny_speech.xtts(models / "xtts", audio_tokens=SENTENCE_TOKENS)
    tiny_speech.vits(models / "vits")
    with contextlib.ExitStack() as stack:
        xtts, vits = (
            stack.enter_context(
                service(name, "aiservice_speech_synthesis", TASK, folder / name, model_dir=models / name)
            )
            for name in ("xtts", "vits")
        )
        ask = {"stream": True, "format": "pcm", "seed": 1}
        one, five = as_json(text=SENTENCES.split(". ")[0], language="en", **ask), as_json(text=SENTENCES, **ask)
        yield [
            ("XTTS, one sentence", xtts, one),
            ("XTTS, five sentences", xtts, as_json(text=SENTENCES, language="en", **ask)),
            ("VITS, five sentences", vits, five),
        ]


def figures(name: str, spoken: Sequence[Spoken]) -> Figures:
    return Figures(
        name,
        spread([one.first for one in spoken]),
        spread([one.whole for one in spoken]),
        spread([one.first / one.whole * 100 for one in spoken]),
    )


def run(rounds: int, output: Path | None) -> None:
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="aiservice-bench-") as name:
        folder = Path(name)
        models = folder / "models"
        with cases(folder, models) as asked:
            spoken: dict[str, list[Spoken]] = {case: [] for case, _, _ in asked}
            for number in range(WARM_UP + rounds):
                for case, server, body in asked:
                    answer = speak(server, body)
                    if number >= WARM_UP:
                        spoken[case].append(answer)
        cold = {
            f"tiny {kind.upper()}": cold_start.starts(
                "aiservice_speech_synthesis", TASK, folder / f"cold-{kind}", model_dir=models / kind
            )
            for kind in ("xtts", "vits")
        }
    found = [figures(case, answers) for case, answers in spoken.items()]
    show(found, cold, facts=facts, method=METHOD.format(rounds=rounds) + cold_start.METHOD, output=output)


def show(
    found: Sequence[Figures],
    cold: Mapping[str, Mapping[str, Spread]],
    *,
    facts: Mapping[str, Any],
    method: str,
    output: Path | None,
) -> None:
    rows = [[one.name, one.first.shown(3), one.whole.shown(3), one.share.shown(1)] for one in found]
    drawn = table(["", "first sound, s", "whole, s", "first of whole, %"], rows)
    document = {"machine": facts, "first_sound": [asdict(one) for one in found], "cold_start": cold_start.kept(cold)}
    title = "Speech synthesis: the first sound of a streamed answer, and cold starts"
    publish(title, method, [drawn, cold_start.drawn(cold)], document, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="how often each is asked (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="file for the figures as JSON")
    options = parser.parse_args()
    run(options.rounds, options.output)


if __name__ == "__main__":
    main()
