"""The languages of a text decide what reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiservice_runtime import InvalidRequestError
from aiservice_runtime.body import parse
from aiservice_vision.engine import ImageToText, VisionEngine
from aiservice_vision.languages import choose, read_by
from aiservice_vision.layout import find
from aiservice_vision.settings import VisionSettings
from support import models
from support.engines import ask, load

ASCII = [chr(code) for code in range(33, 127)]
# What is beyond ASCII in the dictionary of latin_PP-OCRv5_mobile_rec (ppocrv5_latin_dict.txt of PaddleOCR), as letters.
LATIN_V5 = (
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿĄąĆćČčĎďĐđĖėĘęĚěĞğĮįİıĹĺĽľŁłŃńŇňōŐőŒœ"
    "ŔŕŘřŚśŞşŠšŤťŪūŮůŰűŲųŸŹźŻżŽž"
)
KANA = "のにはをたがでアイウンー"
HAN = "的一是在不有和人上中大"
HANGUL = "가나다라이는을의에한"
CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюяёєіїґў"


@pytest.mark.parametrize(
    ("name", "characters", "reads", "not_those"),
    [
        ("PP-OCRv5_server_rec", HAN + KANA + LATIN_V5, "zh ja en", "fr de ko"),
        ("PP-OCRv4_mobile_rec", HAN + KANA, "zh en", "ja"),
        ("PP-OCRv4_server_rec_doc", HAN + KANA, "zh ja en", "fr"),
        ("PP-OCRv6_tiny_rec", HAN + KANA + LATIN_V5, "zh en fr de pl", "ja ro vi"),
        ("ch_SVTRv2_rec", HAN + KANA + LATIN_V5, "zh en", "ja fr"),
        (
            "latin_PP-OCRv5_mobile_rec",
            LATIN_V5,
            "en fr de es it pt pl cs hu tr lt is no sr",
            "ro lv mi mt cy az vi pi zh",
        ),
        ("en_PP-OCRv4_mobile_rec", "", "en", "id sw fr"),
        ("eslav_PP-OCRv5_mobile_rec", CYRILLIC, "ru be uk en", "bg sr"),
        ("cyrillic_PP-OCRv3_mobile_rec", CYRILLIC, "ru be uk bg", "sr mk kk en"),
        ("cyrillic_PP-OCRv5_mobile_rec", CYRILLIC + "ђјљњћџ", "sr", "mk"),
        ("korean_PP-OCRv5_mobile_rec", HANGUL, "ko en", "zh"),
        ("korean_PP-OCRv3_mobile_rec", HANGUL, "ko", "en"),
        ("ka_PP-OCRv3_mobile_rec", "ಅಆಇಕಗಚಜಟಡತದನಪಬಮಯರಲವಸಹ", "kn", "ka en"),
        ("of_our_own", HANGUL + "äöüß", "ko de en id", "fr ru"),
        ("of_our_own_PP-OCRv5_mobile_rec", HANGUL, "ko en", "fr"),
    ],
)
def test_name_and_letters_tell_what_a_recogniser_reads(name: str, characters: str, reads: str, not_those: str) -> None:
    found = read_by(name, [*ASCII, *characters])
    assert found >= set(reads.split())
    assert not found & set(not_those.split())


def test_without_its_letters_a_language_is_not_read() -> None:
    assert read_by("korean_PP-OCRv5_mobile_rec", ASCII) == {"en"}
    assert read_by("korean_PP-OCRv5_mobile_rec", []) == frozenset()


def test_what_the_real_weights_read(weights: Path) -> None:
    [recogniser] = find(weights).recognisers
    assert recogniser.name == "PP-OCRv6_small_rec"
    assert recogniser.languages >= {"zh", "ja", "en", "de", "fr", "es", "pl", "cs", "ro", "tr", "az", "lv", "mt", "cy"}
    assert not recogniser.languages & {"vi", "pi", "ko", "ru", "el", "ar", "hi"}


@dataclass(frozen=True)
class Known:
    name: str
    languages: frozenset[str]


WIDE, NARROW, OTHER = (
    Known(name, frozenset(languages.split())) for name, languages in (("b", "de en fr"), ("a", "de en"), ("c", "en ko"))
)


@pytest.mark.parametrize(
    ("languages", "expected"),
    [([], WIDE), (["de"], NARROW), (["en"], NARROW), (["fr"], WIDE), (["fr", "de"], WIDE), (["ko", "en"], OTHER)],
)
def test_the_one_that_reads_them_all_and_few_others(languages: list[str], expected: Known) -> None:
    assert choose([OTHER, WIDE, NARROW], languages) is expected


def test_what_cannot_be_read_is_told_with_what_can() -> None:
    with pytest.raises(InvalidRequestError, match=r"reads el, xx; languages \(ISO 639-1\) can be de, en, fr, ko\.$"):
        choose([WIDE, OTHER], ["xx", "de", "el"])
    with pytest.raises(InvalidRequestError, match=r"reads de, ko together; languages can be de, en, fr; or en, ko\.$"):
        choose([WIDE, OTHER], ["ko", "de"])


def test_a_form_sends_the_list_as_json() -> None:
    body = parse(ImageToText, {"file": b"x", "languages": json.dumps(["de", "fr"])})
    assert body.languages == ["de", "fr"]
    with pytest.raises(InvalidRequestError, match="languages: must be a JSON list"):
        parse(ImageToText, {"file": b"x", "languages": "de, fr"})


IN_HANGUL = str.maketrans("0123456789", HANGUL)


@pytest.fixture(scope="module")
def two(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VisionEngine]:
    """The real recogniser, and beside it one that gives Hangul for digits: the same weights with another dictionary."""
    folder = tmp_path_factory.mktemp("two")
    for part, source in (("det", "det"), ("rec/all", "rec"), ("rec/korean", "rec")):
        (folder / "ocr" / part).mkdir(parents=True)
        os.link(weights / "ocr" / source / "inference.onnx", folder / "ocr" / part / "inference.onnx")
        content = yaml.load((weights / "ocr" / source / "inference.yml").read_text("utf-8"), Loader=yaml.CSafeLoader)
        if part == "rec/korean":
            content["Global"]["model_name"] = "korean_PP-OCRv5_mobile_rec"
            dictionary = content["PostProcess"]["character_dict"]
            content["PostProcess"]["character_dict"] = [str(each).translate(IN_HANGUL) for each in dictionary]
        text = yaml.dump(content, Dumper=yaml.CSafeDumper, allow_unicode=True)
        (folder / "ocr" / part / "inference.yml").write_text(text, encoding="utf-8")
    engine = VisionEngine(VisionSettings(model_dir=folder))
    load(engine)
    engine.warm_up()
    yield engine
    engine.release()


@pytest.mark.parametrize(
    ("languages", "hangul"),
    [([], False), (["ko"], True), (["de"], False), (["ko", "en"], True), (["EN"], True), (["de", "en"], False)],
)
def test_the_text_is_read_by_the_recogniser_for_its_languages(
    two: VisionEngine, weights: Path, languages: list[str], hangul: bool
) -> None:
    expected: dict[str, Any] = models.expected("image-to-text")
    image = (weights / "samples" / expected["file"]).read_bytes()
    text = ask(two, image=image, languages=languages).body["text"]
    assert text == (expected["text"].translate(IN_HANGUL) if hangul else expected["text"])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"languages": ["ko", "de"]}, "reads de, ko together; languages can be af, az, .*; or en, ko"),
        ({"languages": ["ru"]}, r"reads ru; languages \(ISO 639-1\) can be .* ko,"),
    ],
)
def test_what_no_recogniser_reads_is_refused(two: VisionEngine, fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequestError, match=sentence):
        ask(two, image=b"", **fields)
