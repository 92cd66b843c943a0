"""speech-to-text: faster-whisper against openai-whisper on the same weights and the same clips, and cold starts.

`scripts/bench speech-recognition` runs it; about five minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import cold_start
from bench.figures import Spread, ratios, spread
from bench.report import machine, publish, table
from bench.serving import Body, Server, Timed, WrongAnswerError, as_json, service
from support import models

TASK = "speech-to-text"
BEAMS = (1, 5)
WARM_UP = 2

METHOD = (
    "Two clips of {durations} s, {rounds} rounds; in each, every service is asked for each clip once, one after the "
    "other, over a new connection on loopback. All are processes of our image with as many threads as there are "
    "cores, fp32 (but where int8 is said), and Whisper tiny.en with the same weights: as the CTranslate2 file, and as "
    "the checkpoint that is made of it. seconds are the client's, decoding by ffmpeg and HTTP included: median "
    "(lowest-highest); device is what the model alone took, as the answer says. Ratios are of the rounds. The run "
    "fails unless every answer is what was spoken, word for word. Whisper computes in windows of 30 s: the encoder's "
    "work, which beams do not change, is that of 30 s for the short clip and of 60 s for the long one. "
)


@dataclass(frozen=True)
class Clip:
    """What is asked."""

    body: Body
    expected: str


@dataclass
class Way:
    """A backend with its settings, and what was measured on it: seconds of each clip."""

    name: str
    beam_size: int
    server: Server
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    device_seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def ask(self, body: Body) -> Timed:
        """One request on a connection of its own: the server closes what is idle while the others have their turn."""
        with contextlib.closing(self.server.client()) as client:
            return client.ask(body)

    def measure(self, name: str, clip: Clip) -> None:
        """One request.

        Raises:
            WrongAnswerError: it heard something else.
        """
        answer = self.ask(clip.body)
        if answer.body["text"] != clip.expected:
            raise WrongAnswerError(f"{self.name} with beam size {self.beam_size} heard {answer.body['text']!r}")
        self.seconds[name].append(answer.seconds)
        self.device_seconds[name].append(answer.device_seconds)


@dataclass(frozen=True)
class Figures:
    """Of one clip and one beam size."""

    clip: str
    name: str
    beam_size: int
    seconds: Spread
    device: Spread
    ratio: Spread
    """openai-whisper's seconds by these."""
    device_ratio: Spread


@contextlib.contextmanager
def ways(folder: Path) -> Iterator[list[Way]]:
    """All services, up at the same time: openai-whisper first of each beam size."""
    whisper, converted = models.real_weights() / "whisper", models.faster_whisper_weights()
    kinds: dict[str, Mapping[str, Any]] = {
        "openai-whisper": {"model_dir": whisper},
        "faster-whisper": {"model_dir": converted},
        "faster-whisper int8": {"model_dir": converted, "precision": "int8"},
    }
    with contextlib.ExitStack() as stack:
        found = []
        for beam_size in BEAMS:
            for name, settings in kinds.items():
                place = folder / f"{name}-{beam_size}".replace(" ", "-")
                server = stack.enter_context(
                    service(name, "aiservice_speech_recognition", TASK, place, beam_size=beam_size, **settings)
                )
                found.append(Way(name, beam_size, server))
        yield found


def figures(found: list[Way]) -> list[Figures]:
    floors = {way.beam_size: way for way in found if way.name == "openai-whisper"}
    return [
        Figures(
            clip,
            way.name,
            way.beam_size,
            spread(way.seconds[clip]),
            spread(way.device_seconds[clip]),
            ratios(floors[way.beam_size].seconds[clip], way.seconds[clip]),
            ratios(floors[way.beam_size].device_seconds[clip], way.device_seconds[clip]),
        )
        for clip in clips()
        for way in found
    ]


def clips() -> dict[str, Clip]:
    """By name: two sentences, and a paragraph that is longer than one window."""
    samples = models.real_weights() / "samples"
    short = models.expected(TASK)
    return {
        name: Clip(
            as_json(audio=b64encode((samples / spoken["file"]).read_bytes()).decode(), language="en"), spoken["text"]
        )
        for name, spoken in {"short": short, "long": short["paragraph"]}.items()
    }


def run(rounds: int, output: Path | None) -> None:
    facts = machine()
    asked = clips()
    with tempfile.TemporaryDirectory(prefix="aiservice-bench-") as place:
        folder = Path(place)
        with ways(folder) as found:
            durations = [float(found[0].ask(clip.body).body["duration"]) for clip in asked.values()]
            for way in found:
                for _ in range(WARM_UP):
                    way.ask(asked["short"].body)
            for _ in range(rounds):
                for name, clip in asked.items():
                    for way in found:
                        way.measure(name, clip)
        cold = {
            "openai-whisper, tiny.en": cold_start.starts(
                "aiservice_speech_recognition", TASK, folder / "openai", model_dir=models.real_weights() / "whisper"
            ),
            "faster-whisper, tiny.en": cold_start.starts(
                "aiservice_speech_recognition", TASK, folder / "faster", model_dir=models.faster_whisper_weights()
            ),
        }
    show(
        figures(found),
        cold,
        facts=facts,
        method=METHOD.format(durations=" and ".join(f"{length:.2f}" for length in durations), rounds=rounds)
        + cold_start.METHOD,
        output=output,
    )


def show(
    found: list[Figures],
    cold: Mapping[str, Mapping[str, Spread]],
    *,
    facts: Mapping[str, Any],
    method: str,
    output: Path | None,
) -> None:
    rows = [
        [
            f"{one.clip}: {one.name}, beam size {one.beam_size}",
            one.seconds.shown(3),
            one.ratio.shown(2),
            one.device.shown(3),
            one.device_ratio.shown(2),
        ]
        for one in found
    ]
    drawn = table(["", "seconds", "times as fast", "device", "times as fast, device"], rows)
    document = {
        "machine": facts,
        "backends": [asdict(one) for one in found],
        "cold_start": cold_start.kept(cold),
    }
    title = "Speech recognition: faster-whisper against openai-whisper, and cold starts"
    publish(title, method, [drawn, cold_start.drawn(cold)], document, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="how often each is asked (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="file for the figures as JSON")
    options = parser.parse_args()
    run(options.rounds, options.output)


if __name__ == "__main__":
    main()
