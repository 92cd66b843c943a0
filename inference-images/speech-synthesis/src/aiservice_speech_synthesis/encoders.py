"""Samples to audio files, whole or while they are computed, through libsndfile. Nothing here knows a model.

A streamed file is written without ever going back, so that its bytes can be sent as they are: where a header tells the
length, it says that it is not known.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

Samples = npt.NDArray[np.float32]
"""Mono, between -1 and 1."""

Format = Literal["wav", "mp3", "opus", "flac", "pcm"]

FORMATS: tuple[Format, ...] = get_args(Format)

FILES: dict[str, str] = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg; codecs=opus",
    "flac": "audio/flac",
    "pcm": "audio/pcm",
}
"""Content types; that of pcm has the rate besides, which is the model's."""

# libsndfile's names.
_FILES = {"mp3": ("MP3", "MPEG_LAYER_III"), "opus": ("OGG", "OPUS"), "flac": ("FLAC", "PCM_16")}
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
# sndfile.h: milliseconds after which a page of Ogg is written. Its default, a second, would keep the first sound back.
_SFC_SET_OGG_PAGE_LATENCY_MS = 0x1302
_PAGE_MILLISECONDS = 100.0
_UNKNOWN = 0xFFFF_FFFF


class Encoder(Protocol):
    """Writes one file."""

    def add(self, samples: Samples) -> bytes:
        """Returns what of the file is complete with these samples."""

    def end(self) -> bytes:
        """Returns the rest of the file."""


def rate_of(kind: Format, rate: int) -> int:
    """Returns the sample rate of a file, for sound of this rate: the same, or the next one that its kind can hold."""
    rates = {"opus": _OPUS_RATES, "mp3": _MP3_RATES}.get(kind, (rate,))
    return min((each for each in rates if each >= rate), default=rates[-1])


def media_type(kind: Format, rate: int) -> str:
    """Returns the content type of a file with sound of this rate."""
    return f"{FILES[kind]}; rate={rate}; channels=1" if kind == "pcm" else FILES[kind]


def streamed(kind: Format, rate: int) -> Encoder:
    """Returns what writes a file whose length is not known yet."""
    if kind == "pcm":
        return _Plain()
    return _Plain(wav_header(rate, None)) if kind == "wav" else _File(kind, rate)


def encoded(samples: Samples, kind: Format, rate: int) -> bytes:
    """Returns a whole file."""
    if kind in {"pcm", "wav"}:
        content = pcm(samples)
        return content if kind == "pcm" else wav_header(rate, len(content)) + content
    target, buffer = rate_of(kind, rate), io.BytesIO()
    if target != rate:
        samples = soxr.resample(samples, rate, target)
    name, subtype = _FILES[kind]
    soundfile.write(buffer, samples, target, format=name, subtype=subtype)
    return buffer.getvalue()


def pcm(samples: Samples) -> bytes:
    """Returns 16-bit integers, little-endian."""
    return np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def wav_header(rate: int, size: int | None) -> bytes:
    """Returns the header of a WAV file with `size` bytes of sound; None: not known, as ffmpeg writes it into pipes."""
    data, whole = (_UNKNOWN, _UNKNOWN) if size is None else (size, size + 36)
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", whole, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16, b"data", data
    )


@dataclass
class _Plain:
    """Samples as they are, after a header."""

    _header: bytes = b""

    def add(self, samples: Samples) -> bytes:
        header, self._header = self._header, b""
        return header + pcm(samples)

    def end(self) -> bytes:
        header, self._header = self._header, b""
        return header


@dataclass
class _Pipe:
    """A file that libsndfile believes it can go back in. What it writes there, lengths and checksums, is left out."""

    size: int = 0
    position: int = 0
    _new: bytearray = field(default_factory=bytearray)

    def write(self, data: Any) -> int:
        content = bytes(data)
        if self.position == self.size:
            self._new += content
            self.size += len(content)
        self.position += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = start + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, _: int = -1) -> bytes:
        return b""

    def take(self) -> bytes:
        """Returns what was written since the last time."""
        taken = bytes(self._new)
        self._new.clear()
        return taken


class _File:
    """Compressed, by libsndfile."""

    def __init__(self, kind: Format, rate: int) -> None:
        name, subtype = _FILES[kind]
        target = rate_of(kind, rate)
        self._resampler = soxr.ResampleStream(rate, target, 1, dtype="float32") if target != rate else None
        self._pipe = _Pipe()
        self._file = soundfile.SoundFile(self._pipe, "w", target, 1, format=name, subtype=subtype)
        if name == "OGG":
            latency = soundfile._ffi.new("double*", _PAGE_MILLISECONDS)  # noqa: SLF001 - the package has no name for it
            soundfile._snd.sf_command(self._file._file, _SFC_SET_OGG_PAGE_LATENCY_MS, latency, 8)  # noqa: SLF001 - as above

    def add(self, samples: Samples) -> bytes:
        self._write(samples, last=False)
        return self._pipe.take()

    def end(self) -> bytes:
        if self._resampler is not None:
            self._write(np.zeros(0, np.float32), last=True)
        self._file.close()
        return self._pipe.take()

    def _write(self, samples: Samples, *, last: bool) -> None:
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        if samples.size:
            self._file.write(samples)
