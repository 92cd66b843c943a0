"""Which form of an answer a client accepts: JSON, or the file in it by itself (RFC 9110 section 12.5.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.request import parse_http_list

from aiservice_runtime.engine import FileBody
from aiservice_runtime.errors import NotAcceptableError

JSON = "application/json"

_ANYTHING, _TYPE, _SUBTYPE = 1, 2, 3


@dataclass(frozen=True)
class Range:
    """One element of an Accept header."""

    name: str
    """type/subtype in lower case; the second or both may be `*`."""
    parameters: frozenset[str] = frozenset()
    """name=value in lower case, without quotes."""
    weight: float = 1.0
    """From 0 (not wanted) to 1."""

    def exactness(self, media_type: str) -> int:
        """Returns how exactly it names a media type; 0: not at all."""
        name, parameters = _taken_apart(media_type)
        if not self.parameters <= parameters:
            return 0
        if self.name == name:
            return _SUBTYPE + len(self.parameters)
        if self.name == f"{name.partition('/')[0]}/*":
            return _TYPE
        return _ANYTHING if self.name == "*/*" else 0


def read_accept(values: Sequence[str]) -> list[Range]:
    """Returns what the Accept headers of a request name; without any, or with empty ones, that is everything."""
    elements = parse_http_list(",".join(values))
    return [_range(element) for element in elements if element] or [Range("*/*")]


def preference(accepted: Iterable[Range], media_type: str) -> tuple[float, int]:
    """Returns how much a media type is wanted, from 0 to 1, and how exactly it is named.

    The range that names it most exactly decides. Of equal weight, what is named more exactly is wanted more.
    """
    exactness, weight = max(((each.exactness(media_type), each.weight) for each in accepted), default=(0, 0.0))
    return (weight, exactness) if exactness and weight else (0.0, 0)


def check_accept(values: Sequence[str], files: Mapping[str, str]) -> None:
    """Looks at the headers only: raises NotAcceptableError when they take nothing that a task can answer.

    `files` are those of the task; a task without any does not look at Accept.
    """
    if files and not _wanted(read_accept(values), [JSON, *files.values()]):
        raise NotAcceptableError(
            f"Accept takes nothing that this task answers: accept {JSON}, or one of {_listed(files.values())}."
        )


def choose_form(body: FileBody, values: Sequence[str], files: Mapping[str, str]) -> None:
    """Makes the answer to a request the file itself where its Accept wants that more than JSON.

    Where the body states no format, Accept chooses among `files`, which are those of the task. Raises
    NotAcceptableError when body and Accept contradict each other.
    """
    if not files:
        return
    accepted, stated = read_accept(values), body.stated_format
    forms: list[tuple[str | None, str]] = [] if body.file_asked_by else [(None, JSON)]
    if body.no_file is None:
        forms += [(kind, files[kind]) for kind in ([stated] if stated else files)]
    # The first of those that are wanted equally.
    kind, media_type = max(forms, key=lambda form: preference(accepted, form[1]))
    if not _wanted(accepted, [media_type]):
        raise NotAcceptableError(_contradiction(body, accepted, files))
    if kind is not None:
        body.answer_with_file(kind)


def _contradiction(body: FileBody, accepted: Sequence[Range], files: Mapping[str, str]) -> str:
    """Why nothing that the body allows is accepted, though something of the task is."""
    if body.no_file is not None:
        return body.no_file
    stated = body.stated_format
    if stated and _wanted(accepted, files.values()):
        other = "" if body.file_asked_by else f" or {JSON}"
        return f"format is {stated}, which Accept does not take: leave format out, or accept {files[stated]}{other}."
    types = [files[stated]] if stated else files.values()
    field = body.file_asked_by
    return (
        f"{field} asks for the file itself, which Accept does not take: leave {field} out, or accept {_listed(types)}."
    )


def _wanted(accepted: Sequence[Range], media_types: Iterable[str]) -> bool:
    return any(preference(accepted, media_type)[0] for media_type in media_types)


def _range(element: str) -> Range:
    """One that cannot be read names nothing, or weighs nothing."""
    name, parameters = _taken_apart(element)
    stated = [each.removeprefix("q=") for each in parameters if each.startswith("q=")]
    rest = frozenset(each for each in parameters if not each.startswith("q="))
    return Range(name, rest, _weight(stated[0]) if stated else 1.0)


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0


def _taken_apart(media_type: str) -> tuple[str, frozenset[str]]:
    name, *parameters = (part.strip().lower() for part in media_type.split(";"))
    pairs = (part.partition("=") for part in parameters if part)
    return name, frozenset("=".join((key.strip(), value.strip().strip('"'))) for key, _, value in pairs)


def _listed(media_types: Iterable[str]) -> str:
    return ", ".join(media_types)
