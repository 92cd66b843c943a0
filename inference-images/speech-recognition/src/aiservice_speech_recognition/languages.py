"""Languages by code or English name, as Whisper's tokenizer knows them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from aiservice_runtime import InvalidRequestError


def english_only(language: str | None, *, translate: bool) -> str:
    """Returns "en". Raises InvalidRequestError when something else is asked of a model that knows English only."""
    if translate:
        raise InvalidRequestError("This model knows English only, it cannot translate.")
    if language is not None and language.lower() not in {"en", "english"}:
        raise InvalidRequestError("This model knows English only: leave language out, or set it to en.")
    return "en"


def code_of(language: str, known: Collection[str], codes_by_name: Mapping[str, str]) -> str:
    """Returns the code of a language. Raises InvalidRequestError when the model does not know it."""
    name = language.lower()
    code = name if name in known else codes_by_name.get(name)
    if code is None or code not in known:
        raise InvalidRequestError("The language is not known to this model; give its code, such as en, de or zh.")
    return code
