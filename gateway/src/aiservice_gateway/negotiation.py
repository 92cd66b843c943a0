"""Which of two media types a client would rather have (RFC 9110 section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence


def prefers(accept: Sequence[str], media_type: str, *, over: str) -> bool:
    """Whether a client names a media type and wants it more than another.

    Args:
        accept: The values of all Accept headers.
        media_type: As type/subtype. A range such as */* does not name it.
        over: What is sent otherwise.
    """
    weights = dict(_weight(element) for element in ",".join(accept).lower().split(","))
    kind = over.partition("/")[0]
    other = next((weights[name] for name in (over, f"{kind}/*", "*/*") if name in weights), 0.0)
    return weights.get(media_type, 0.0) > other


def _weight(element: str) -> tuple[str, float]:
    """A media range and its weight; one that cannot be read weighs nothing."""
    name, *parameters = (part.strip() for part in element.split(";"))
    stated = [part.removeprefix("q=") for part in parameters if part.startswith("q=")]
    try:
        return name, float(stated[0]) if stated else 1.0
    except ValueError:
        return name, 0.0
