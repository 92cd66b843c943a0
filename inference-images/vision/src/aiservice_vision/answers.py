"""What image-to-text answers, as /openapi.json tells it, with examples."""

from __future__ import annotations

from collections.abc import Sequence

from aiservice_runtime import AnswerBody, Described, Example, Shape

# The word "Invoice" in black on white, 160 x 48 pixels.
_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAKAAAAAwAQAAAAC+0kzDAAAA+ElEQVR42u2TMU7DQBRE39or2ZXNASKFI3CCeEtKjsARuEG2o+QIXIOOICE5JXfA"
    "PbFpHLF4KOKFGJAQdEj51f7RjObrSWvE10k4iJ/ELj7v/xA36opftgdgFRe1/aoqh8pXdUjll5KE2t7Pr8KCst6YgbkkWeD6AhbmlPZpqB4ALHDc"
    "A86R5N6dxSLnXAh+RmOD7/fbPQB3uCh6ZmwpWKc3kzu3k+PtZJNJw7uzmJrGeBfx9D8Ayb6l1GR09K+e9YdoPYAj29Ebnbn1DSFAHnmqDmWoLuvH"
    "TViWkafqoRz2eY7xI+NPyBPD+S4+zoukWz1Lksw/+UdvFtd3Q2ckFNsAAAAASUVORK5CYII="
)


class TextLine(Described):
    """One line of text in the picture."""

    text: str
    confidence: float
    """0 to 1."""
    box: list[list[int]]
    """Its corners [x, y], clockwise from the top left, in pixels of the upright picture."""


class Seen(AnswerBody):
    """What is in the picture."""

    caption: str | None
    """Without the prompt; null when none was made."""
    text: str
    """All lines; empty when there are none, or none were looked for."""
    lines: list[TextLine]
    width: int
    """Of the upright picture, in pixels."""
    height: int


SHAPES = (Shape("application/json", body=Seen),)

_USAGE = {"units": 1.0, "unit": "image", "cost": None}
_READ = {
    "text": "Invoice",
    "lines": [{"text": "Invoice", "confidence": 0.99, "box": [[6, 8], [128, 8], [128, 44], [6, 44]]}],
    "width": 160,
    "height": 48,
}

_EXAMPLES = (
    Example(
        "everything",
        "What the service can: caption, text or both",
        {"image": _PNG},
        {"caption": "the word invoice in black on white", **_READ, "usage": {**_USAGE, "tokens": 10}},
    ),
    Example(
        "text",
        "The text in a picture",
        {"image": _PNG, "caption": False, "ocr": True},
        {"caption": None, **_READ, "usage": {**_USAGE, "tokens": 2}},
    ),
    Example(
        "question",
        "A question about a picture",
        {"image": _PNG, "caption": True, "ocr": False, "prompt": "Question: what is written here? Answer:"},
        {"caption": "invoice", "text": "", "lines": [], "width": 160, "height": 48, "usage": {**_USAGE, "tokens": 3}},
    ),
)


def examples(*, captions: bool, reads: bool) -> Sequence[Example]:
    """Returns those that a service answers which makes captions, reads text, or both."""
    needed = {"text": reads, "question": captions}
    return [example for example in _EXAMPLES if needed.get(example.name, True)]
