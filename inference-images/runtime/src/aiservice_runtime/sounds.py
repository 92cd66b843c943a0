"""Uploads to samples, through ffmpeg: any usual container and codec, bounded in time and size.

Only engines for sound call this: ffmpeg is in their images. It reads from a file in memory, because the index of an MP4
may be at its end, where no pipe can seek to.
"""

from __future__ import annotations

import os
import re
import subprocess

from aiservice_runtime import uploads
from aiservice_runtime.errors import InvalidRequestError, PayloadTooLargeError

# Containers of media. Playlists (HLS, concat, DASH, ...) stay out: they name other files and addresses to read.
_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,mpegvideo,ogg,w64,wav,webm"
)
_CUT_SHORT = re.compile(rb"ended prematurely|partial file|corrupt input packet")

_SAMPLE_BYTES = 2


def decode(upload: bytes, *, rate: int, max_seconds: float, timeout: float) -> bytes:
    """Returns the sound of an upload as mono samples, `rate` a second: 16-bit integers, little-endian.

    Raises InvalidRequestError when there is no sound in it, it is something else too, damaged, or takes longer than
    `timeout` seconds to decode; PayloadTooLargeError when it lasts longer than `max_seconds`.
    """
    if not upload:
        raise InvalidRequestError("The audio is empty.")
    uploads.check_sound(upload)
    result = _ffmpeg(upload, rate=rate, seconds=max_seconds + 1, timeout=timeout)
    samples = result.stdout[: len(result.stdout) // _SAMPLE_BYTES * _SAMPLE_BYTES]
    if result.returncode != 0 or not samples:
        raise InvalidRequestError("No audio could be decoded: the upload is in no known audio format, or damaged.")
    if _CUT_SHORT.search(result.stderr) and not _streamed_wav(upload):
        raise InvalidRequestError("The audio is cut short: the file says that it is longer than it is.")
    if len(samples) > max_seconds * rate * _SAMPLE_BYTES:
        raise PayloadTooLargeError(f"The audio is longer than {max_seconds:g} seconds, the limit of this service.")
    return samples


def _streamed_wav(upload: bytes) -> bool:
    """Tells a WAV file that was written into a pipe: its header was sent before its length was known."""
    size = int.from_bytes(upload[4:8], "little")
    return upload[:4] == b"RIFF" and (size == 0 or size >= 0x7FF0_0000)


def _ffmpeg(upload: bytes, *, rate: int, seconds: float, timeout: float) -> subprocess.CompletedProcess[bytes]:
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "warning", "-threads", "1"]
    command += ["-protocol_whitelist", "file", "-format_whitelist", _FORMATS, "-i", "file:/dev/stdin"]
    command += ["-map", "0:a:0", "-t", f"{seconds:.3f}", "-ac", "1", "-ar", str(rate), "-f", "s16le", "pipe:1"]
    with os.fdopen(os.memfd_create("upload"), "wb") as file:
        file.write(upload)
        file.flush()
        try:
            return subprocess.run(command, stdin=file, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise InvalidRequestError(f"The audio could not be decoded within {timeout:g} seconds.") from None
