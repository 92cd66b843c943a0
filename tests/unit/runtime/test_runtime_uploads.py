"""Files of two formats at once are refused; what phones and editors leave in pictures is not."""

from __future__ import annotations

import io
import random
import struct
import tarfile
import tracemalloc
import wave
import zipfile
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from aiservice_runtime import InvalidRequestError
from aiservice_runtime.pictures import decode
from aiservice_runtime.uploads import check_picture, check_sound
from support.polyglots import with_archive


def encoded(kind: str, size: tuple[int, int] = (8, 8), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 10, 10)).save(buffer, kind, **options)
    return buffer.getvalue()


def wav(samples: bytes = bytes(4000)) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples)
    return buffer.getvalue()


def archive(comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("inside.txt", "inside")
        file.comment = comment
    return buffer.getvalue()


def zip64(first: bytes) -> bytes:
    """Returns a file with an archive behind it that says in its newer records only where its list is."""
    entries = archive()
    place = entries.rindex(b"PK\x05\x06")
    directory = entries.index(b"PK\x01\x02")
    count, size = 1, place - directory
    newer = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, directory)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, place, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return first + entries[:place] + newer + locator + end


def tarred(first: bytes) -> bytes:
    """Returns a tar archive whose first 100 bytes, the name of its first file, are the start of another file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as file:
        file.addfile(tarfile.TarInfo("x"), io.BytesIO())
    header = bytearray(buffer.getvalue())
    header[: len(first[:100])] = first[:100]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\x00 " % sum(header[:512])
    return bytes(header)


def with_text(text: bytes) -> bytes:
    """Returns a PNG with a comment right behind its header."""
    chunk = b"tEXt" + b"Comment\x00" + text
    png = encoded("PNG")
    place = 8 + 25
    inserted = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png[:place] + inserted + png[place:]


def padded(first: bytes, place: int, sign: bytes) -> bytes:
    """Returns a file with something at a place behind it."""
    return first.ljust(place, b"\x00")[:place] + sign + bytes(64)


JPEG = encoded("JPEG")
MP4 = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + b"\x00\x00\x00\x10mdat12345678"


@pytest.mark.parametrize(
    ("upload", "found"),
    [
        (with_text(b"%PDF-1.4\n1 0 obj"), "a PDF document"),
        (JPEG[:2] + b"\xff\xfe\x00\x0a%PDF-1.4" + JPEG[2:], "a PDF document"),
        (padded(encoded("BMP"), 1024, b"%PDF-1.7"), "a PDF document"),
        (with_archive(JPEG), "a ZIP archive"),
        (encoded("PNG") + archive(), "a ZIP archive"),
        (encoded("GIF") + archive(b"x" * 65_535), "a ZIP archive"),
        (encoded("WEBP") + archive() + bytes(500), "a ZIP archive"),
        (encoded("PNG") + archive() + b"PK\x05\x06" * 100, "a ZIP archive"),
        (zip64(JPEG), "a ZIP archive"),
        (tarred(encoded("BMP")), "a tar archive"),
        (padded(encoded("BMP"), 128, b"DICM"), "a DICOM record"),
        (padded(JPEG, 32_769, b"CD001"), "a disc image"),
        (JPEG + b"Rar!\x1a\x07\x01\x00" + bytes(64), "a RAR archive"),
        (JPEG + b"7z\xbc\xaf\x27\x1c" + bytes(64), "a 7z archive"),
        (with_text(b"<html><body>hello"), "a web page"),
        (with_text(b"<!DOCTYPE  HTML>"), "a web page"),
        (with_text(b'<SVG xmlns="http://www.w3.org/2000/svg">'), "a web page"),
        (with_text(b"<script>alert(1)</script>"), "a web page"),
        (encoded("GIF", comment=b"<?php system($_GET[0]); ?>"), "a web page"),
    ],
)
def test_a_picture_that_is_something_else_too_is_refused(upload: bytes, found: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^The picture can be opened as {found}.* too: send a file that is"):
        decode(upload, max_pixels=1e6)


def test_the_archives_are_ones() -> None:
    for upload in (
        with_archive(JPEG),
        encoded("PNG") + archive(),
        zip64(JPEG),
        encoded("WEBP") + archive() + bytes(500),
    ):
        assert zipfile.ZipFile(io.BytesIO(upload)).read("inside.txt") == b"inside"
    with tarfile.open(fileobj=io.BytesIO(tarred(encoded("BMP")))) as file:
        assert file.getmembers()


@pytest.mark.parametrize(
    ("upload", "found"),
    [
        (b"ID3\x04\x00\x00\x00\x00\x02\x00" + b"%PDF-1.4" + bytes(300), "a PDF document"),
        (MP4[:8] + b"%PDF-1.4" + MP4[8:], "a PDF document"),
        (with_archive(wav()), "a ZIP archive"),
        (MP4 + archive(), "a ZIP archive"),
        (tarred(wav()), "a tar archive"),
        (wav() + b"Rar!\x1a\x07\x00", "a RAR archive"),
        (b"ID3\x04\x00\x00\x00\x00\x02\x00<html >" + bytes(300), "a web page"),
        (b"\xef\xbb\xbf \n<audio src='a.mp3'>" + b"\xff\xfb\x90\x00" * 100, "a document"),
        (JPEG + b"\xff\xfb\x90\x00" * 100, "a picture"),
        (encoded("BMP") + b"\xff\xfb\x90\x00" * 100, "a picture"),
        (encoded("WEBP"), "a picture"),
        (b"MZ" + bytes(60) + b"\xff\xfb\x90\x00" * 100, "a program"),
        (b"#!/bin/sh\n" + b"\xff\xfb\x90\x00" * 100, "a program"),
        (b"PK\x03\x04ftypmp42" + MP4, "an archive"),
        (b"\x1f\x8b\x08\x00" + b"\xff\xfb\x90\x00" * 100, "an archive"),
        (b"{\\rtf1" + b"\xff\xfb\x90\x00" * 100, "a document"),
    ],
)
def test_a_sound_that_is_something_else_too_is_refused(upload: bytes, found: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^The audio can be opened as {found}.* too: send a file that is"):
        check_sound(upload)


def two_pictures() -> bytes:
    """Returns a picture with a second one behind it and an index of both, as cameras and phones write (MPO)."""
    buffer = io.BytesIO()
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    pictures[0].save(buffer, "MPO", save_all=True, append_images=pictures[1:])
    return buffer.getvalue()


def with_xmp() -> bytes:
    packet = b'<?xpacket begin="" id="W5M0"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>&lt;html&gt;</rdf:RDF>'
    segment = b"http://ns.adobe.com/xap/1.0/\x00" + packet
    return JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + JPEG[2:]


@pytest.mark.parametrize(
    "upload",
    [
        two_pictures(),
        JPEG + MP4,  # a motion photo
        JPEG + b"MotionPhoto_Data" + MP4 + b"SEFH\x6b\x00\x00\x00\x01\x00\x00\x00SEFT",
        JPEG + JPEG,  # a gain map
        JPEG + bytes(100_000),
        JPEG + b"\r\n",
        JPEG.ljust(1025, b"\x00") + b"%PDF-1.4",
        JPEG.ljust(2000, b"\x00") + b"<html>",
        JPEG + b"PK\x05\x06",  # as it occurs by chance
        JPEG + b"PK\x05\x06" + bytes(18),
        JPEG + b"PK\x03\x04 and no list of entries",
        with_xmp(),
        with_text(b'<?xml version="1.0"?><!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN"><plist></plist>'),
        with_text(b"Made <b>by</b> hand, <svgo>, <htmlx"),
        encoded("TIFF", description='<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/"/>'),
    ],
)
def test_what_phones_and_editors_leave_in_a_picture_is_let_through(upload: bytes) -> None:
    picture = decode(upload, max_pixels=1e6)
    assert picture.getpixel((0, 0)) == pytest.approx((255, 0, 0) if b"MPF" in upload[:200] else (200, 10, 10), abs=8)


@pytest.mark.parametrize(
    "upload",
    [
        wav(),
        wav() + b"TAG" + bytes(125),
        MP4,
        b"ID3\x04\x00\x00\x00\x00\x00\x00" + b"APIC" + JPEG + b"\xff\xfb\x90\x00" * 100,  # with its cover
        b"#!AMR\n" + bytes(64),
        wav() + b'<?xml version="1.0"?><BWFXML></BWFXML>',
        wav().replace(b"WAVE", b'WAVEiXML\x26\x00\x00\x00<?xml version="1.0"?><BWFXML></BWFXML>'),
        b"\x00\x00BM\x00<",
    ],
)
def test_what_recorders_write_is_let_through(upload: bytes) -> None:
    check_sound(upload)


@pytest.mark.parametrize("check", [check_picture, check_sound])
def test_noise_is_no_second_format(check: Callable[[bytes], None]) -> None:
    check(b"\xff\xfb" + random.Random(0).randbytes(3_000_000))


@pytest.mark.parametrize("check", [check_picture, check_sound])
def test_a_large_file_is_not_copied(check: Callable[[bytes], None]) -> None:
    upload = JPEG[:20] + bytes(25_000_000) if check is check_picture else wav(bytes(25_000_000))
    tracemalloc.start()
    try:
        check(upload)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
