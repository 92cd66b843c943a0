"""The five tasks, their ports and the facts about them that every part shares.

Names and ports are the public contract of the deployment guide and never change.
"""

from __future__ import annotations

from enum import StrEnum


class Task(StrEnum):
    """One thing that a service does over HTTP."""

    TEXT_TO_IMAGE = "text-to-image"
    TEXT_TO_SPEECH = "text-to-speech"
    SPEECH_TO_TEXT = "speech-to-text"
    IMAGE_TO_IMAGE = "image-to-image"
    IMAGE_TO_TEXT = "image-to-text"


PORTS: dict[Task, int] = {
    Task.TEXT_TO_IMAGE: 7860,
    Task.TEXT_TO_SPEECH: 7861,
    Task.SPEECH_TO_TEXT: 7862,
    Task.IMAGE_TO_IMAGE: 7863,
    Task.IMAGE_TO_TEXT: 7864,
}
"""The TCP port on which a pod serves each task."""

ENGINES: dict[Task, str] = {
    Task.TEXT_TO_IMAGE: "diffusion",
    Task.TEXT_TO_SPEECH: "speech-synthesis",
    Task.SPEECH_TO_TEXT: "speech-recognition",
    Task.IMAGE_TO_IMAGE: "diffusion",
    Task.IMAGE_TO_TEXT: "vision",
}
"""The engine (inference image) that serves each task; tasks of one engine may share one copy of the weights."""
