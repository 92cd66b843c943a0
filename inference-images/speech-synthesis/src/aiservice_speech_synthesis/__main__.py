"""Entry point of the container: `python -m aiservice_speech_synthesis`."""

from __future__ import annotations

import sys

from aiservice_runtime import parse_settings, run_main, serve
from aiservice_speech_synthesis.engine import SynthesisEngine
from aiservice_speech_synthesis.settings import SynthesisSettings

DESCRIPTION = "Serves text-to-speech with the XTTS, VITS or other Coqui model in the model folder."


def start() -> int:
    """Serves until the process is told to stop; returns the exit code."""
    settings = parse_settings(SynthesisSettings, sys.argv[1:], description=DESCRIPTION)
    return serve(SynthesisEngine(settings), settings)


if __name__ == "__main__":
    run_main(start)
