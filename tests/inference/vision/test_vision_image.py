"""Decoding of uploads with the real Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aiservice_runtime import InvalidRequestError, PayloadTooLargeError
from aiservice_runtime.pictures import decode

Colour = tuple[int, ...]


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Returns the picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def filled(mode: str, colour: Colour | float, size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new(mode, size, colour)


def at(upload: bytes, x: int = 0, y: int = 0) -> Colour:
    """Returns one pixel of the decoded upload."""
    picture = decode(upload, max_pixels=1e6)
    assert picture.mode == "RGB"
    pixel = picture.getpixel((x, y))
    assert isinstance(pixel, tuple)
    return pixel


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_usual_formats_are_decoded(kind: str) -> None:
    red = at(encoded(filled("RGB", (250, 10, 10)), kind))
    assert red == pytest.approx((250, 10, 10), abs=6)


@pytest.mark.parametrize(
    ("picture", "kind", "expected"),
    [
        (filled("L", 100), "PNG", (100, 100, 100)),
        (filled("1", 1), "PNG", (255, 255, 255)),
        (filled("P", 0), "PNG", (0, 0, 0)),
        (filled("I;16", 0x8000), "PNG", (128, 128, 128)),
        (filled("CMYK", (0, 0, 0, 255)), "TIFF", (0, 0, 0)),
        (filled("RGBA", (0, 0, 0, 0)), "PNG", (255, 255, 255)),
        (filled("RGBA", (0, 0, 0, 255)), "PNG", (0, 0, 0)),
        (filled("LA", (0, 0)), "PNG", (255, 255, 255)),
    ],
)
def test_any_usual_pixel_becomes_rgb_on_white(picture: Image.Image, kind: str, expected: Colour) -> None:
    assert at(encoded(picture, kind)) == pytest.approx(expected, abs=1)


def test_transparency_of_a_palette_is_white() -> None:
    assert at(encoded(filled("P", 0), "PNG", transparency=0)) == (255, 255, 255)


def test_exif_turns_the_picture() -> None:
    picture = filled("RGB", (0, 0, 0), (4, 2))
    picture.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    turned = decode(encoded(picture, "PNG", exif=exif), max_pixels=100)
    assert turned.size == (2, 4)
    assert turned.getpixel((1, 0)) == (255, 255, 255)


def test_the_first_frame_counts() -> None:
    frames = [filled("RGB", (255, 0, 0)), filled("RGB", (0, 0, 255))]
    assert at(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])) == (255, 0, 0)


@pytest.mark.parametrize(
    ("upload", "sentence"),
    [
        (b"", "empty"),
        (b"no picture", "is no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no picture"),
        (encoded(filled("F", 0.5), "TIFF"), "pixels of the kind F"),
    ],
)
def test_what_is_no_picture_is_refused(upload: bytes, sentence: str) -> None:
    with pytest.raises(InvalidRequestError, match=sentence):
        decode(upload, max_pixels=1e6)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_picture_cut_short_is_refused(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    with pytest.raises(InvalidRequestError):
        decode(whole[: int(len(whole) * share)], max_pixels=1e6)


@pytest.mark.parametrize("seed", range(40))
def test_damage_is_never_more_than_a_refusal(seed: int) -> None:
    random = np.random.default_rng(seed)
    kind = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"][seed % 6]
    damaged = bytearray(encoded(filled("RGB", (1, 2, 3), (60, 40)), kind))
    for position in random.integers(0, len(damaged), 6):
        damaged[position] = int(random.integers(0, 256))
    try:
        picture = decode(bytes(damaged), max_pixels=1e6)
    except (InvalidRequestError, PayloadTooLargeError):
        return
    assert picture.mode == "RGB"


def test_the_limit_is_checked_before_a_pixel_is_decoded() -> None:
    with pytest.raises(PayloadTooLargeError, match=r"more than 0\.0001 megapixels"):
        decode(encoded(filled("RGB", (0, 0, 0), (11, 10)), "PNG"), max_pixels=100)
    assert decode(encoded(filled("RGB", (0, 0, 0), (10, 10)), "PNG"), max_pixels=100).size == (10, 10)
    # A header that claims 100 gigapixels, and no data: it must not get as far as the data.
    header = struct.pack(">IIBBBBB", 400_000, 250_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(PayloadTooLargeError):
        decode(bomb, max_pixels=40e6)
