"""Finds what a model folder holds: BLIP-2 for captions, PaddleOCR for text, or both.

config.json ... (model_type blip-2)      BLIP-2 at the root, as Salesforce/blip2-* are on the Hugging Face hub,
caption/config.json ...                  or in a folder of its own
ocr/det/inference.onnx, inference.yml    PaddleOCR: finds lines of text
ocr/rec/inference.onnx, inference.yml    PaddleOCR: reads a line
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aiservice_runtime import FatalError
from aiservice_runtime.weight_files import Parameters, in_safetensors

LAYOUT = (
    "expected BLIP-2 in the Hugging Face layout (config.json with model_type blip-2) at the root or in caption/, "
    "or PaddleOCR with inference.onnx and inference.yml in each of ocr/det and ocr/rec, or both"
)


@dataclass(frozen=True)
class OcrModel:
    """One of PaddleOCR's two models."""

    name: str
    """As PaddleOCR knows it, for example PP-OCRv6_small_det."""
    folder: Path


@dataclass(frozen=True)
class Layout:
    """What was found; at least one half is there."""

    caption: Path | None
    detector: OcrModel | None
    recogniser: OcrModel | None


def find(folder: Path) -> Layout:
    """Looks into a model folder. Raises FatalError with a sentence when it holds no half, or an incomplete one."""
    caption = next((path for path in (folder, folder / "caption") if _is_blip2(path)), None)
    ocr = folder / "ocr"
    if not ocr.is_dir():
        if caption is None:
            raise FatalError(f"No model in {folder}: {LAYOUT}.")
        return Layout(caption, None, None)
    return Layout(caption, _ocr_model(ocr / "det"), _ocr_model(ocr / "rec"))


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


def _ocr_model(folder: Path) -> OcrModel:
    description = folder / "inference.yml"
    for path in (folder / "inference.onnx", description):
        if not path.is_file():
            raise FatalError(f"{path} is missing: {LAYOUT}.")
    name = _parsed(description, yaml.safe_load).get("Global", {}).get("model_name")
    if not isinstance(name, str):
        raise FatalError(f"{description} does not name its model (Global.model_name).")
    return OcrModel(name, folder)


def _parsed(path: Path, parse: Any) -> dict[str, Any]:
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise FatalError(f"{path} cannot be read: {type(error).__name__}.") from error
    if not isinstance(content, dict):
        raise FatalError(f"{path} cannot be read: it holds no mapping.")
    return content
