"""What a model folder may hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from aiservice_runtime import FatalError
from aiservice_vision.layout import OcrModel, find


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


BLIP2 = '{"model_type": "blip-2"}'


def ocr(part: str) -> dict[str, str]:
    return {
        f"ocr/{part}/inference.onnx": "",
        f"ocr/{part}/inference.yml": yaml.safe_dump({"Global": {"model_name": f"PP-OCRv6_small_{part}"}}),
    }


def test_each_half_and_both(tmp_path: Path) -> None:
    root = write(tmp_path / "a", {"config.json": BLIP2})
    assert (find(root).caption, find(root).detector) == (root, None)
    folder = write(tmp_path / "b", {"caption/config.json": BLIP2})
    assert find(folder).caption == folder / "caption"
    both = find(write(tmp_path / "c", {"caption/config.json": BLIP2, **ocr("det"), **ocr("rec")}))
    assert both.caption == tmp_path / "c" / "caption"
    assert both.detector == OcrModel("PP-OCRv6_small_det", tmp_path / "c" / "ocr" / "det")
    assert both.recogniser == OcrModel("PP-OCRv6_small_rec", tmp_path / "c" / "ocr" / "rec")
    assert find(write(tmp_path / "d", {**ocr("det"), **ocr("rec")})).caption is None


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "No model in"),
        ({"config.json": '{"model_type": "whisper"}'}, "No model in"),
        ({"config.json": "{"}, "config.json cannot be read"),
        ({"config.json": "[]"}, "holds no mapping"),
        (ocr("det"), "inference.onnx is missing"),
        ({**ocr("det"), "ocr/rec/inference.onnx": ""}, "inference.yml is missing"),
        ({**ocr("det"), **ocr("rec"), "ocr/rec/inference.yml": "Global: {}"}, "does not name its model"),
        ({**ocr("det"), **ocr("rec"), "ocr/rec/inference.yml": "a: ["}, "cannot be read"),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, files: dict[str, str], sentence: str) -> None:
    with pytest.raises(FatalError, match=sentence):
        find(write(tmp_path, files))
