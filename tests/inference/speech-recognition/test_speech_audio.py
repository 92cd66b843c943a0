"""Decoding of uploads with the real ffmpeg."""

from __future__ import annotations

import io
import math
import struct
import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest

from aiservice_runtime import InvalidRequestError, PayloadTooLargeError
from aiservice_speech_recognition.audio import SAMPLE_RATE, decode
from support.polyglots import with_archive


def wav(seconds: float, *, rate: int = 16_000, channels: int = 1) -> bytes:
    """Returns a WAV file with a tone of 440 Hz."""
    count = round(seconds * rate)
    tone = [round(8000 * math.sin(2 * math.pi * 440 * n / rate)) for n in range(count)]
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b"".join(struct.pack("<h", value) * channels for value in tone))
    return buffer.getvalue()


def converted(source: bytes, name: str, folder: Path, *options: str) -> bytes:
    """Returns the WAV file in another format, which the name's ending tells."""
    target = folder / name
    command = ["ffmpeg", "-v", "error", "-y", "-f", "wav", "-i", "pipe:0", *options, str(target)]
    subprocess.run(command, input=source, check=True)
    return target.read_bytes()


FORMATS = [
    "a.mp3",
    "a.m4a",
    "a.flac",
    "a.ogg",
    "a.opus",
    "a.webm",
    "a.mkv",
    "a.aiff",
    "a.wma",
    "a.mp4",
    "a.aac",
    "a.caf",
]


@pytest.mark.parametrize("name", FORMATS)
def test_usual_formats_are_decoded(name: str, tmp_path: Path) -> None:
    samples = decode(converted(wav(2), name, tmp_path), max_seconds=10, timeout=30)
    assert samples.dtype == np.int16
    assert samples.size / SAMPLE_RATE == pytest.approx(2, abs=0.15)
    assert strongest(samples) == pytest.approx(440, abs=5)


def strongest(samples: np.ndarray[tuple[int], np.dtype[np.int16]]) -> float:
    spectrum = np.abs(np.fft.rfft(samples))
    return float(np.argmax(spectrum)) * SAMPLE_RATE / samples.size


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (48_000, 1)])
def test_any_rate_becomes_16_khz_mono(rate: int, channels: int) -> None:
    samples = decode(wav(1, rate=rate, channels=channels), max_seconds=10, timeout=30)
    assert samples.size == pytest.approx(SAMPLE_RATE, abs=2)
    assert strongest(samples) == pytest.approx(440, abs=2)


def test_a_film_gives_its_sound(tmp_path: Path) -> None:
    film = converted(wav(1), "film.mp4", tmp_path, "-f", "lavfi", "-i", "testsrc=d=1:s=64x64", "-shortest")
    assert decode(film, max_seconds=10, timeout=30).size == pytest.approx(SAMPLE_RATE, rel=0.1)


def test_a_wav_of_unknown_length_is_no_damage() -> None:
    streamed = subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "wav", "-i", "pipe:0", "-f", "wav", "pipe:1"],
        input=wav(1),
        capture_output=True,
        check=True,
    ).stdout
    assert b"\xff\xff\xff\xff" in streamed[:8]
    assert decode(streamed, max_seconds=10, timeout=30).size == SAMPLE_RATE


@pytest.mark.parametrize(
    ("upload", "sentence"),
    [
        (b"", "empty"),
        (b"hello, this is no sound", "no known audio format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "can be opened as a picture"),
        (with_archive(wav(1)), "can be opened as a ZIP archive too"),
        (wav(0), "No audio could be decoded"),
        (wav(1)[:20_001], "cut short"),
        (b"RIFF", "No audio could be decoded"),
    ],
)
def test_what_is_no_sound_is_refused(upload: bytes, sentence: str) -> None:
    with pytest.raises(InvalidRequestError, match=sentence):
        decode(upload, max_seconds=10, timeout=30)


@pytest.mark.parametrize("name", ["a.m4a", "a.webm"])
def test_a_file_cut_in_half_is_refused(name: str, tmp_path: Path) -> None:
    whole = converted(wav(5), name, tmp_path)
    with pytest.raises(InvalidRequestError):
        decode(whole[: len(whole) // 2], max_seconds=10, timeout=30)


def test_a_fast_start_file_cut_in_half_is_refused(tmp_path: Path) -> None:
    whole = converted(wav(5), "a.m4a", tmp_path, "-movflags", "+faststart")
    with pytest.raises(InvalidRequestError, match="cut short"):
        decode(whole[: len(whole) // 2], max_seconds=10, timeout=30)


def test_the_limit_of_length(tmp_path: Path) -> None:
    assert decode(wav(2), max_seconds=2, timeout=30).size == 2 * SAMPLE_RATE
    with pytest.raises(PayloadTooLargeError, match="longer than 2 seconds"):
        decode(wav(2.1), max_seconds=2, timeout=30)
    # A small file that decodes to hours is cut off, not decoded to its end.
    long = converted(wav(1), "long.flac", tmp_path, "-af", "apad=pad_dur=7200")
    assert len(long) < 3_000_000
    with pytest.raises(PayloadTooLargeError):
        decode(long, max_seconds=10, timeout=30)


def test_decoding_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="within 0 seconds"):
        decode(wav(1), max_seconds=10, timeout=0)


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{path}'\n",
    ],
)
def test_a_playlist_cannot_read_other_files(playlist: str, tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(wav(1))
    with pytest.raises(InvalidRequestError):
        decode(playlist.format(path=other).encode(), max_seconds=10, timeout=30)
