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


def ocr(part: str, name: str = "", characters: str = "") -> dict[str, str]:
    description = {
        "Global": {"model_name": name or f"PP-OCRv6_small_{part}"},
        "PostProcess": {"character_dict": list(characters)},
    }
    return {f"ocr/{part}/inference.onnx": "", f"ocr/{part}/inference.yml": yaml.safe_dump(description)}


def test_each_half_and_both(tmp_path: Path) -> None:
    root = write(tmp_path / "a", {"config.json": BLIP2})
    assert (find(root).caption, find(root).detector) == (root, None)
    folder = write(tmp_path / "b", {"caption/config.json": BLIP2})
    assert find(folder).caption == folder / "caption"
    both = find(write(tmp_path / "c", {"caption/config.json": BLIP2, **ocr("det"), **ocr("rec")}))
    assert both.caption == tmp_path / "c" / "caption"
    assert both.detector == OcrModel("PP-OCRv6_small_det", tmp_path / "c" / "ocr" / "det")
    assert both.recognisers == (OcrModel("PP-OCRv6_small_rec", tmp_path / "c" / "ocr" / "rec"),)
    assert find(write(tmp_path / "d", {**ocr("det"), **ocr("rec")})).caption is None


def test_recognisers_for_several_languages(tmp_path: Path) -> None:
    korean = ocr("rec/korean", "korean_PP-OCRv5_mobile_rec", "가나다라이는을의에한")
    russian = ocr("rec/eslav", "eslav_PP-OCRv5_mobile_rec", "абвгдежзийклмнопрстуфхцчшщъыьэюяё")
    below = find(write(tmp_path / "a", {**ocr("det"), **korean, **russian, "ocr/rec/README.md": ""}))
    assert [(model.folder.name, set(model.languages)) for model in below.recognisers] == [
        ("eslav", {"ru"}),
        ("korean", {"ko"}),
    ]
    beside = find(write(tmp_path / "b", {**ocr("det"), **ocr("rec"), **korean}))
    assert [model.folder.name for model in beside.recognisers] == ["rec", "korean"]


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
        ({**ocr("det"), **ocr("rec"), "ocr/rec/inference.yml": "Global: 3"}, "does not name its model"),
        ({**ocr("det"), **ocr("rec"), "ocr/rec/inference.yml": "a: ["}, "cannot be read"),
        ({**ocr("det"), "ocr/rec/korean/inference.onnx": ""}, "korean/inference.yml is missing"),
        ({**ocr("det"), **ocr("rec/a", "x"), **ocr("rec/b", "x")}, "holds x more than once: keep one"),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, files: dict[str, str], sentence: str) -> None:
    with pytest.raises(FatalError, match=sentence):
        find(write(tmp_path, files))
