"""Nulls in examples: FastAPI leaves them out of a description, so until it is done something else stands for them."""

from __future__ import annotations

from typing import Any, Final

_NULL: Final = "(null)"


def with_nulls(example: Any) -> Any:
    """An example whose nulls stay in the description."""
    return _replaced(example, None, _NULL)


def restored(document: dict[str, Any]) -> dict[str, Any]:
    """A description that has its examples' nulls."""
    whole: dict[str, Any] = _replaced(document, _NULL, None)
    return whole


def _replaced(value: Any, old: str | None, new: str | None) -> Any:
    if isinstance(value, dict):
        return {name: _replaced(inner, old, new) for name, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, old, new) for inner in value]
    return new if value == old else value
