"""What was delivered of a streamed answer that was cut."""

from __future__ import annotations

from decimal import Decimal

import orjson
import pytest

from aiservice_gateway.models import Measured
from aiservice_gateway.services.streams import Follower

WHOLE = Measured(Decimal("12.5"), "audio-second")


def event(**fields: object) -> bytes:
    return b"data: " + orjson.dumps(fields) + b"\n\n"


def segment(end: object) -> bytes:
    return event(type="segment", start=0.0, end=end, text="hello")


DONE = event(type="done", text="hello", usage={"units": 12.5, "unit": "audio-second", "tokens": 31})


def followed(*chunks: bytes, content_type: str = "text/event-stream; charset=utf-8") -> Follower:
    follower = Follower(WHOLE, content_type)
    for chunk in chunks:
        follower.follow(chunk)
    return follower


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_transcript_is_charged_up_to_its_last_whole_segment(size: int) -> None:
    stream = segment(2.5) + segment(6.84) + segment(9)[:-3]
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert followed(*chunks).delivered == Measured(Decimal("6.84"), "audio-second")
    assert followed().delivered.units == 0


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_last_event_tells_the_tokens(size: int) -> None:
    stream = segment(2.5) + DONE
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    whole = Measured(Decimal("12.5"), "audio-second", 31)
    assert (followed(*chunks).whole, followed(*chunks).delivered) == (whole, whole)


def test_no_more_is_charged_than_the_whole() -> None:
    assert followed(segment(1000)).delivered.units == Decimal("12.5")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"data: {",
        b"data: []",
        segment("x"),
        segment(-1),
        segment(None),
        event(type="done"),
        event(type="done", usage=3),
    ],
)
def test_nonsense_is_passed_over(nonsense: bytes) -> None:
    follower = followed(segment(2), nonsense + b"\n", b"\xff\n", b"event: x\n")
    assert follower.delivered.units == 2
    assert follower.whole == WHOLE


def test_an_event_without_end_is_not_kept() -> None:
    follower = followed(segment(2), *[b"x" * 100_000] * 30)
    assert len(follower._unfinished) <= 256 * 1024
    assert follower.delivered.units == 2


def test_of_sound_nothing_tells_how_much_of_the_text_it_is() -> None:
    follower = followed(b"RIFF" + b"\0" * 1000, content_type="audio/wav")
    assert follower.delivered == follower.whole == WHOLE
