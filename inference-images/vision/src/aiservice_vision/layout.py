"""Finds what a model folder holds: BLIP-2 for captions, PaddleOCR for text, or both.

config.json ... (model_type blip-2)      BLIP-2 at the root, as Salesforce/blip2-* are on the Hugging Face hub,
caption/config.json ...                  or in a folder of its own
ocr/det/inference.onnx, inference.yml    PaddleOCR: finds lines of text
ocr/rec/inference.onnx, inference.yml    PaddleOCR: reads a line
ocr/rec/NAME/inference.onnx, ...         more that read, for other languages, each in a folder of its own
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aiservice_runtime import FatalError
from aiservice_runtime.weight_files import Parameters, in_safetensors
from aiservice_vision.languages import read_by

LAYOUT = (
    "expected BLIP-2 in the Hugging Face layout (config.json with model_type blip-2) at the root or in caption/, "
    "or PaddleOCR with inference.onnx and inference.yml in each of ocr/det and ocr/rec (or folders of ocr/rec), or both"
)


_WEIGHTS = "inference.onnx"
_DESCRIPTION = "inference.yml"


@dataclass(frozen=True)
class OcrModel:
    """One of PaddleOCR's two models."""

    name: str
    """As PaddleOCR knows it, for example PP-OCRv6_small_det."""
    folder: Path
    languages: frozenset[str] = frozenset()
    """That a recogniser reads, as codes of ISO 639-1."""


@dataclass(frozen=True)
class Layout:
    """What was found; at least one half is there."""

    caption: Path | None
    detector: OcrModel | None
    recognisers: tuple[OcrModel, ...] = ()
    """One at least where there is a detector; no two of one name."""


def find(folder: Path) -> Layout:
    """Looks into a model folder. Raises FatalError with a sentence when it holds no half, or an incomplete one."""
    caption = next((path for path in (folder, folder / "caption") if _is_blip2(path)), None)
    ocr = folder / "ocr"
    if not ocr.is_dir():
        if caption is None:
            raise FatalError(f"No model in {folder}: {LAYOUT}.")
        return Layout(caption, None)
    return Layout(caption, _ocr_model(ocr / "det"), _recognisers(ocr / "rec"))


def halves(folder: Path) -> tuple[bool, bool]:
    """Returns whether a folder is to caption and to read, before it is loaded; what is wrong with it, loading tells."""
    try:
        captions = any(_is_blip2(path) for path in (folder, folder / "caption"))
    except (FatalError, OSError):
        captions = False
    return captions, (folder / "ocr").is_dir()


def parameters_of(folder: Path) -> Parameters | None:
    """Returns how many parameters the BLIP-2 in a folder has; None where its files do not tell."""
    try:
        found = in_safetensors(folder.glob("*.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if found.count else None


def _is_blip2(folder: Path) -> bool:
    config = folder / "config.json"
    if not config.is_file():
        return False
    return bool(_parsed(config, json.loads).get("model_type") == "blip-2")


def _recognisers(folder: Path) -> tuple[OcrModel, ...]:
    """Reads those that lie in a folder, itself and below. Raises FatalError when there is none, or one twice."""
    below = sorted(path for path in folder.glob("*") if path.is_dir())
    alone = (folder / _WEIGHTS).exists() or (folder / _DESCRIPTION).exists() or not below
    found = [_ocr_model(path) for path in ([folder] if alone else []) + below]
    names = [model.name for model in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise FatalError(f"{folder} holds {twice} more than once: keep one of them.")
    return tuple(found)


def _ocr_model(folder: Path) -> OcrModel:
    description = folder / _DESCRIPTION
    for path in (folder / _WEIGHTS, description):
        if not path.is_file():
            raise FatalError(f"{path} is missing: {LAYOUT}.")
    content = _parsed(description, _from_yaml)
    name = _mapping(content, "Global").get("model_name")
    if not isinstance(name, str):
        raise FatalError(f"{description} does not name its model (Global.model_name).")
    characters = _mapping(content, "PostProcess").get("character_dict") or []
    return OcrModel(name, folder, read_by(name, {str(each) for each in characters}))


def _from_yaml(text: str) -> Any:
    # In C: the dictionary of a recogniser has up to 18,000 lines, which take the parser in Python seconds.
    return yaml.load(text, Loader=yaml.CSafeLoader)


def _mapping(content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _parsed(path: Path, parse: Any) -> dict[str, Any]:
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise FatalError(f"{path} cannot be read: {type(error).__name__}.") from error
    if not isinstance(content, dict):
        raise FatalError(f"{path} cannot be read: it holds no mapping.")
    return content
