"""Files of two formats at once: a picture or a sound that other programs take for a document, archive or program.

What counts is where the programs for a format look for it. Those that look at the first bytes only find a picture or a
sound there, whatever stands behind: so what phones append is let through (a second picture, a film, their own records).
Refused is what is found elsewhere, or in a sound, which decoders also find behind the start of another format.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from aiservice_runtime.errors import InvalidRequestError

_SELF_EXTRACTING = 1024**2
"""Bytes in which an archive may begin behind a program that unpacks it (RAR 5.0 archive format, "Self-extracting")."""
_HEAD = 1445
"""Bytes in which browsers look for markup (WHATWG, MIME Sniffing, "Reading the resource header")."""


@dataclass(frozen=True)
class _Mark:
    """What a format is known by, where its programs look for it."""

    name: str
    sign: bytes
    first: int
    """Where it may begin, in bytes from the start of the file."""
    last: int

    def found(self, upload: bytes) -> bool:
        return upload.find(self.sign, self.first, self.last + len(self.sign)) >= 0


_MARKS = (
    _Mark("a PDF document", b"%PDF-", 0, 1024),  # PDF Reference 1.7, appendix H, note 13
    _Mark("a DICOM record", b"DICM", 128, 128),  # DICOM PS3.10, 7.1
    _Mark("a tar archive", b"ustar", 257, 257),  # POSIX pax, "ustar Interchange Format"
    _Mark("a disc image", b"CD001", 32_769, 32_769),  # ECMA-119, 8.1
    _Mark("a RAR archive", b"Rar!\x1a\x07", 0, _SELF_EXTRACTING),
    _Mark("a 7z archive", b"7z\xbc\xaf\x27\x1c", 0, _SELF_EXTRACTING),
)

# Not "<?xml" or "<!DOCTYPE" alone: cameras and editors write property lists and XMP into the head of pictures.
_MARKUP = re.compile(
    rb"<(?:!doctype\s+(?:html|svg)|(?:html|head|body|script|iframe|object|embed|svg)[\s/>]|\?php\s)", re.IGNORECASE
)

# What begins so is something else for every program but a sound decoder, which looks on until it finds a frame.
_OTHER_STARTS = re.compile(
    rb"(?P<picture>\x89PNG\r\n|GIF8[79]a|\xff\xd8\xff|II\*\x00|MM\x00\*|BM.{4}\x00{4}|RIFF.{4}WEBP)"
    rb"|(?P<program>MZ|\x7fELF|\xca\xfe\xba\xbe|\xcf\xfa\xed\xfe|#![ \t]*/)"
    rb"|(?P<archive>PK\x03\x04|\x1f\x8b\x08|BZh[1-9]|\xfd7zXZ\x00|MSCF)"
    rb"|(?P<document>%!PS|\{\\rtf|\xd0\xcf\x11\xe0|(?:\xef\xbb\xbf)?\s{0,99}<[A-Za-z!?])",
    re.DOTALL,
)
_ARTICLES = {"picture": "a picture", "program": "a program", "archive": "an archive", "document": "a document"}

# APPNOTE.TXT (ZIP), 4.3.16: the record that unpackers search from the end, its comment of up to 64 KiB behind it.
_ZIP_END = struct.Struct("<4s4H2LH")
_ZIP_END_SIGN = b"PK\x05\x06"
_ZIP_ENTRY_SIGN = b"PK\x01\x02"
_ZIP64_SIGN = b"PK\x06\x07"
_ZIP64_BYTES = 20
_ZIP_LONGEST_COMMENT = 0xFFFF


def check_picture(upload: bytes) -> None:
    """Raises InvalidRequestError when what begins as a picture is something else for other programs."""
    _refuse("picture", _second_format(upload))


def check_sound(upload: bytes) -> None:
    """Raises InvalidRequestError when a sound is, or may be, something else for other programs."""
    start = _OTHER_STARTS.match(upload)
    _refuse("audio", _second_format(upload) or (_ARTICLES[str(start.lastgroup)] if start else None))


def _refuse(what: str, found: str | None) -> None:
    if found is not None:
        raise InvalidRequestError(f"The {what} can be opened as {found} too: send a file that is nothing else.")


def _second_format(upload: bytes) -> str | None:
    """Returns what other programs find, without copying the upload."""
    for mark in _MARKS:
        if mark.found(upload):
            return mark.name
    if _MARKUP.search(upload, 0, _HEAD):
        return "a web page, SVG or script"
    return "a ZIP archive" if _is_zip(upload) else None


def _is_zip(upload: bytes) -> bool:
    """Looks for the end of a ZIP archive, that of JAR, APK, EPUB and office documents too, as unpackers do."""
    lowest = max(0, len(upload) - _ZIP_END.size - _ZIP_LONGEST_COMMENT)
    place = upload.rfind(_ZIP_END_SIGN, lowest)
    while place >= 0:
        if _lists_entries(upload, place):
            return True
        place = upload.rfind(_ZIP_END_SIGN, lowest, place + len(_ZIP_END_SIGN) - 1)
    return False


def _lists_entries(upload: bytes, place: int) -> bool:
    """Tells whether the record at a place leads to a list of entries: four bytes alone occur in compressed pixels."""
    if place + _ZIP_END.size > len(upload):
        return False
    if upload.startswith(_ZIP64_SIGN, max(0, place - _ZIP64_BYTES)):
        return True
    size, offset = _ZIP_END.unpack_from(upload, place)[5:7]
    # Counted from the record, as most unpackers do since programs stand before archives, or from the start.
    return any(0 <= start < place and upload.startswith(_ZIP_ENTRY_SIGN, start) for start in (place - size, offset))
