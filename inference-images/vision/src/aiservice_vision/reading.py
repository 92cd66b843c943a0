"""Text in pictures, with PaddleOCR's models on onnxruntime; no paddlepaddle, no network, nothing written but /tmp."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, DistributionFinder, distribution
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aiservice_runtime import FatalError
from aiservice_vision.layout import OcrModel


@dataclass(frozen=True)
class Line:
    """One line of text."""

    text: str
    confidence: float
    box: list[list[int]]
    """Its corners, clockwise from the top left, as [x, y] in pixels of the picture."""


class Reader:
    """Finds and reads lines of text. Not for several threads at once."""

    def __init__(self, detector: OcrModel, recognisers: Sequence[OcrModel], *, threads: int, max_side: int) -> None:
        """Loads one detector, and the recognisers that read what it finds.

        Raises FatalError when PaddleOCR does not take them.
        """
        paddleocr = _import_paddleocr()
        first, *others = recognisers
        try:
            self._pipeline = paddleocr.PaddleOCR(
                text_detection_model_name=detector.name,
                text_detection_model_dir=str(detector.folder),
                text_recognition_model_name=first.name,
                text_recognition_model_dir=str(first.folder),
                text_det_limit_type="max",
                text_det_limit_side_len=max_side,
                use_doc_orientation_classify=False,
                use_doc_unwarping=False,
                use_textline_orientation=False,
                engine="onnxruntime",
                engine_config={"intra_op_num_threads": threads},
                device="cpu",
            )
            # PaddleOCR has one recogniser in a pipeline. Those of other pipelines would each have a detector of theirs.
            self._parts = self._pipeline.paddlex_pipeline._pipeline  # noqa: SLF001 - there is no other way to them
            config = self._pipeline._merged_paddlex_config["SubModules"]["TextRecognition"]  # noqa: SLF001 - as above
            self._recognisers = {first.name: self._parts.text_rec_model} | {
                model.name: self._parts.create_model(
                    {**config, "model_name": model.name, "model_dir": str(model.folder)},
                    input_shape=self._parts.input_shape,
                )
                for model in others
            }
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0][:300]
            raise FatalError(f"PaddleOCR cannot load {detector.folder.parent}: {reason}") from error

    def read(self, picture: Image.Image, recogniser: str) -> list[Line]:
        """Returns the lines of an RGB picture, in reading order, as the recogniser of that name reads them."""
        self._parts.text_rec_model = self._recognisers[recogniser]
        blue_green_red = np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])
        [result] = self._pipeline.predict(blue_green_red)
        found = zip(result["rec_texts"], result["rec_scores"], result["rec_polys"], strict=True)
        return [
            Line(text, round(float(score), 4), [[int(x), int(y)] for x, y in corners])
            for text, score, corners in found
            if text.strip()
        ]


class _HeadlessOpenCv(DistributionFinder):
    """Tells PaddleOCR, which looks for a package of this name, that its headless build is the same code."""

    def find_spec(self, *_: Any, **__: Any) -> None:
        """Finds no module; this finder is about package metadata."""

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterable[Distribution]:
        """Finds one distribution under another's name."""
        if context is not None and context.name == "opencv-contrib-python":
            return [distribution("opencv-contrib-python-headless")]
        return []


def _import_paddleocr() -> Any:
    """Imports PaddleOCR so that it asks no model hub, writes to /tmp only, and logs as the rest of the process."""
    os.environ["PADDLE_PDX_CACHE_HOME"] = str(Path(tempfile.gettempdir()) / f"aiservice-{os.getuid()}" / "paddlex")
    os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime's Linux builds send model names and hashes otherwise
    if not any(isinstance(finder, _HeadlessOpenCv) for finder in sys.meta_path):
        sys.meta_path.append(_HeadlessOpenCv())
    import paddleocr  # noqa: PLC0415 - reads the environment when it is imported

    for name in ("paddlex", "ppocr", "paddleocr"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    return paddleocr
