"""Text in a picture comes back exactly: real weights, the real PaddleOCR."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from aiservice_runtime import InvalidRequestError, PayloadTooLargeError
from aiservice_vision.engine import VisionEngine
from aiservice_vision.settings import VisionSettings
from support import models
from support.engines import ask, load
from support.polyglots import with_archive


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def written(lines: list[str], *, size: int = 44, mode: str = "RGB", background: object = "white") -> bytes:
    """Returns a picture of lines of text."""
    picture = Image.new(mode, (size * 16, size * 2 * (len(lines) + 1)), background)  # type: ignore[arg-type]  # any colour
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((size, size * (2 * number + 1)), line, font=ImageFont.load_default(size=size), fill="black")
    return png(picture)


def test_the_sample_is_read_exactly(reader: VisionEngine, weights: Path) -> None:
    expected = models.expected("image-to-text")
    answer = ask(reader, image=(weights / "samples" / expected["file"]).read_bytes())
    body = answer.body
    assert body["text"] == expected["text"]
    assert [line["text"] for line in body["lines"]] == expected["lines"]
    assert body["caption"] is None
    assert (body["width"], body["height"]) == (640, 300)
    assert answer.units == 1
    assert answer.tokens == math.ceil(len(expected["text"]) / 4)
    for number, line in enumerate(body["lines"]):
        assert 0.9 < line["confidence"] <= 1
        xs, ys = zip(*line["box"], strict=True)
        assert min(xs) == pytest.approx(40, abs=10)
        assert min(ys) < 70 + 80 * number < max(ys)


@pytest.mark.parametrize("size", [24, 44, 90])
def test_letters_of_several_sizes(reader: VisionEngine, size: int) -> None:
    lines = ["Order 4711", "Ship to Berlin", "Weight 12.5 kg"]
    assert ask(reader, image=written(lines, size=size)).body["text"].split("\n") == lines


def test_letters_on_a_transparent_ground(reader: VisionEngine) -> None:
    assert (
        ask(reader, image=written(["Transparent"], mode="RGBA", background=(0, 0, 0, 0))).body["text"] == "Transparent"
    )


def test_a_page_of_a_scanner(reader: VisionEngine) -> None:
    lines = [f"Row number {number} of the page" for number in range(30)]
    body = ask(reader, image=written(lines, size=60)).body
    assert body["height"] > 3500  # scaled down to be searched, read in full resolution
    assert body["text"].split("\n") == lines


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (5000, 2), (320, 240)])
def test_a_picture_without_text_has_no_lines(reader: VisionEngine, size: tuple[int, int]) -> None:
    body = ask(reader, image=png(Image.new("RGB", size, "white"))).body
    assert (body["text"], body["lines"], body["width"]) == ("", [], size[0])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"caption": True}, "no captioning model; it reads text"),
        ({"ocr": False}, "Nothing to do"),
        ({"prompt": "Question: what? Answer:"}, "A prompt is for captions"),
        ({"languages": ["de", "ru", "ko"]}, "Nothing here reads ko, ru; languages .* can be af, az, .*, uz, zh"),
    ],
)
def test_what_a_reader_cannot_do_is_refused(reader: VisionEngine, fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidRequestError, match=sentence):
        ask(reader, image=b"", **fields)


def test_a_picture_that_is_an_archive_too_is_refused(reader: VisionEngine) -> None:
    with pytest.raises(InvalidRequestError, match="can be opened as a ZIP archive too"):
        ask(reader, image=with_archive(written(["Invoice"])))


def test_the_limit_of_pixels_is_a_setting(weights: Path) -> None:
    engine = VisionEngine(VisionSettings(model_dir=weights, max_megapixels=0.01))
    load(engine)
    with pytest.raises(PayloadTooLargeError, match=r"0\.01 megapixels"):
        ask(engine, image=png(Image.new("RGB", (101, 100))))


def test_a_reader_writes_to_the_temporary_folder_only_and_reports_to_nobody(weights: Path, tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    program = (
        "import sys, time; from pathlib import Path; from aiservice_vision import layout, reading\n"
        "found = layout.find(Path(sys.argv[1]))\n"
        "reading.Reader(found.detector, found.recognisers, threads=1, max_side=960)\n"
        "time.sleep(1)"  # onnxruntime's telemetry would make its files in a thread of its own
    )
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PADDLE", "ORT_", "CI"))}
    variables |= {"HOME": str(home), "XDG_CACHE_HOME": str(home), "TMPDIR": str(temporary)}
    subprocess.run([sys.executable, "-c", program, str(weights)], env=variables, check=True)
    assert list(home.iterdir()) == []
    assert {path.name for path in temporary.glob("*/*")} == {"paddlex"}
