"""Entry point of the container: `python -m aiservice_speech_recognition`."""

from __future__ import annotations

import sys

from aiservice_runtime import parse_settings, run_main, serve
from aiservice_speech_recognition.engine import SpeechEngine
from aiservice_speech_recognition.settings import SpeechSettings

DESCRIPTION = "Serves speech-to-text with the Whisper model in the model folder."


def start() -> int:
    """Serves until the process is told to stop; returns the exit code."""
    settings = parse_settings(SpeechSettings, sys.argv[1:], description=DESCRIPTION)
    return serve(SpeechEngine(settings), settings)


if __name__ == "__main__":
    run_main(start)
