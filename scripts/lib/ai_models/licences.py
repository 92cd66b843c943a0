"""Tells the licences of what is downloaded, and has those accepted that must be."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TextIO

from ai_models.catalog import Model

_WIDTH = 100
_HUB = "https://huggingface.co"
_YES = frozenset({"y", "yes"})


class LicenceRefusedError(Exception):
    """A licence that must be accepted was not. The message says what to do."""


def notices(models: Sequence[Model]) -> str:
    """The licences of some models, in short: one paragraph each, those that must be accepted marked."""
    return "\n".join(_notice(model) for model in models)


def _notice(model: Model) -> str:
    licence = model.licence
    where = " and ".join(f"{_HUB}/{part.repo}" for part in model.parts)
    mark = "!! " if licence.must_accept else ""
    text = f"{mark}{model.name}: {licence.name}. {licence.summary} See {where}."
    note = f" {model.note}" if model.note else ""
    return textwrap.fill(
        text + note,
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def accept(models: Sequence[Model], *, accepted: bool, ask: Callable[[str], str] | None) -> None:
    """Makes sure that the licences of some models are accepted where they must be.

    Args:
        models: Those that are about to be fetched.
        accepted: Whether an option said so.
        ask: Puts a question to a person and returns the answer; None: there is nobody to ask.

    Raises:
        LicenceRefusedError: If one is not.
    """
    for model in models:
        if not model.licence.must_accept or accepted:
            continue
        if ask is None:
            raise LicenceRefusedError(
                f"{model.name} is under the {model.licence.name}, which must be accepted, and there is no terminal to "
                f"ask at. {model.licence.summary} If your use is covered, say so with --accept-licences; else name the "
                f"tasks that you want without {' and '.join(model.tasks)}. Nothing was fetched."
            )
        question = f"\n{model.name} is under the {model.licence.name}.\n{model.licence.summary}\nDo you accept? [y/N] "
        if ask(question).strip().lower() not in _YES:
            raise LicenceRefusedError(
                f"The licence of {model.name} was not accepted, and nothing was fetched. Name the tasks that you want "
                f"without {' and '.join(model.tasks)} to have the others."
            )


def asker(stdin: TextIO, stdout: TextIO) -> Callable[[str], str] | None:
    """Asks at a terminal; None if there is none."""
    if not (stdin.isatty() and stdout.isatty()):
        return None

    def ask(question: str) -> str:
        stdout.write(question)
        stdout.flush()
        return stdin.readline()

    return ask
