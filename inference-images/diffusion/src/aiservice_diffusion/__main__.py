"""Entry point of the container: `python -m aiservice_diffusion`."""

from __future__ import annotations

import sys

from aiservice_diffusion.engine import DiffusionEngine
from aiservice_diffusion.settings import DiffusionSettings
from aiservice_runtime import parse_settings, run_main, serve

DESCRIPTION = "Serves text-to-image and image-to-image with the diffusers pipeline in the model folder."


def start() -> int:
    """Serves until the process is told to stop; returns the exit code."""
    settings = parse_settings(DiffusionSettings, sys.argv[1:], description=DESCRIPTION)
    return serve(DiffusionEngine(settings), settings)


if __name__ == "__main__":
    run_main(start)
