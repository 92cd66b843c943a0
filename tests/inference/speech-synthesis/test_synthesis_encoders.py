"""Every format, whole and streamed, is what ffmpeg hears the same in."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest

from aiservice_speech_synthesis.encoders import Format, encoded, media_type, rate_of, streamed

Heard = Callable[..., np.ndarray[tuple[int], np.dtype[np.int16]]]
FORMATS: tuple[Format, ...] = get_args(Format)
# Seconds by which an encoder may make sound longer: MP3 and Opus compute frames, and their first is a preparation.
LONGER = {"mp3": 0.2, "opus": 0.03}


def tone(rate: int, seconds: float = 2.0) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return (0.4 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def in_chunks(samples: np.ndarray[tuple[int], np.dtype[np.float32]], kind: Format, rate: int, size: int) -> list[bytes]:
    encoder = streamed(kind, rate)
    return [*(encoder.add(samples[start : start + size]) for start in range(0, samples.size, size)), encoder.end()]


def options(kind: Format, rate: int) -> list[str]:
    return ["-f", "s16le", "-ar", str(rate), "-ac", "1"] if kind == "pcm" else []


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000])
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_heard_is_what_was_said(kind: Format, rate: int, stream: bool, heard: Heard) -> None:
    samples = tone(rate)
    content = b"".join(in_chunks(samples, kind, rate, 3000)) if stream else encoded(samples, kind, rate)
    got = heard(content, *options(kind, rate)).astype(np.float32) / 32768
    assert got.size / 24_000 == pytest.approx(2, abs=LONGER.get(kind, 0.001))
    middle = got[12_000:36_000]
    spectrum = np.abs(np.fft.rfft(middle))
    assert abs(int(np.argmax(spectrum)) - 440) <= 1
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.4 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_stream_begins_with_the_first_sound(kind: Format) -> None:
    parts = in_chunks(tone(24_000), kind, 24_000, 4800)
    sent = np.cumsum([len(part) for part in parts])
    assert sent[2] > sent[-1] * 0.1, "0.6 s of 2 s were given"
    assert all(later > earlier for earlier, later in zip(sent[3:8:2], sent[5:10:2], strict=True)), (
        "and it goes on coming"
    )


def test_wav_tells_its_length_when_it_is_known() -> None:
    whole = encoded(tone(24_000, 1), "wav", 24_000)
    assert int.from_bytes(whole[4:8], "little") == len(whole) - 8
    assert int.from_bytes(whole[40:44], "little") == len(whole) - 44 == 48_000
    assert b"".join(in_chunks(tone(24_000, 1), "wav", 24_000, 1000))[44:] == whole[44:]


def test_loud_samples_are_cut_off_and_not_wrapped() -> None:
    assert np.frombuffer(encoded(np.array([2.0, -2.0], np.float32), "pcm", 24_000), "<i2").tolist() == [32767, -32767]


@pytest.mark.parametrize(
    ("kind", "rate", "expected"),
    [("opus", 22_050, 24_000), ("opus", 44_100, 48_000), ("mp3", 24_000, 24_000), ("wav", 22_050, 22_050)],
)
def test_rates(kind: Format, rate: int, expected: int) -> None:
    assert rate_of(kind, rate) == expected


def test_media_types() -> None:
    assert [media_type(kind, 24_000) for kind in FORMATS] == [
        "audio/wav",
        "audio/mpeg",
        "audio/ogg; codecs=opus",
        "audio/flac",
        "audio/pcm; rate=24000; channels=1",
    ]
