"""Entry point of the container: `python -m aiservice_vision`."""

from __future__ import annotations

import sys

from aiservice_runtime import parse_settings, run_main, serve
from aiservice_vision.engine import VisionEngine
from aiservice_vision.settings import VisionSettings

DESCRIPTION = "Serves image-to-text: captions with BLIP-2, text with PaddleOCR, as the model folder holds them."


def start() -> int:
    """Serves until the process is told to stop; returns the exit code."""
    settings = parse_settings(VisionSettings, sys.argv[1:], description=DESCRIPTION)
    return serve(VisionEngine(settings), settings)


if __name__ == "__main__":
    run_main(start)
