"""Whether a secret may sign tokens. Who knows or guesses it is any user of any tenant."""

from __future__ import annotations

import re
from itertools import pairwise

MINIMUM_SECRET_BYTES = 32  # RFC 7518 section 3.2: a key of at least the hash's size
MINIMUM_DISTINCT_CHARACTERS = 8
_MINIMUM_LEFT = 20
"""Of 32 hexadecimal digits that are random, this many are left but once in some hundred thousand million times."""
_SHORTEST_RUN = 4

PLACEHOLDER = re.compile(
    r"your.{0,20}(secret|key|jwt)|change.?(me|this|it|in)|secret.{0,4}here|replace.?(me|this|with)"
    r"|super.?secret|placeholder|example|insecure|default.?secret|dev(elopment)?.?(secret|key)",
    re.IGNORECASE,
)

_PUBLISHED = frozenset(
    map(
        str.casefold,
        (
            # FastAPI's tutorial
            "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
            # tutorials of Spring Security
            "404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970",
            # Hasura's documentation
            "3EK6FD+o0+c7tzBNVfjpMkNDi2yARAAKzQlk8O2IKoxQu4nF7EdAh8s3TwpHwrdWT6R",
            # RFC 7515, appendix A.1
            "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
        ),
    )
)
"""Random once, and printed since. Those that are made of words are refused for that, jwt.io's among them."""

_WORDS = re.compile(
    """
    access|admin|application|auth(?:entication|orization)?|backend|bearer|bits?|bytes|characters|default|demo
    |development|enough|environment|fake|gateway|here|hmac|insert|jwt|key|least|length|letmein|local|long|minimum|must
    |not|password|private|production|put|qwerty|random|really|replace|safe|sample|secret|secure|server|session|sha256
    |should|sign(?:ing)?|some|string|strong|super|test(?:ing)?|that|this|token|ultra|user|very|with|your
    """,
    re.VERBOSE,
)
_SEPARATORS = frozenset(" -_.")
_ROWS = ("0123456789abcdefghijklmnopqrstuvwxyz", "1234567890qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = frozenset(pair for row in _ROWS for way in (row, row[::-1]) for pair in pairwise(way))
"""Characters that follow each other in the alphabet or on a keyboard, to either side."""


def weakness(secret: str) -> str | None:
    """Why a secret must not sign tokens, or None when it may."""
    if len(secret.encode()) < MINIMUM_SECRET_BYTES:
        return f"it is shorter than {MINIMUM_SECRET_BYTES} bytes"
    if len(set(secret)) < MINIMUM_DISTINCT_CHARACTERS:
        return f"it has fewer than {MINIMUM_DISTINCT_CHARACTERS} different characters"
    if _is_placeholder(secret):
        return "it looks like the placeholder of an example"
    return None


def _is_placeholder(secret: str) -> bool:
    text = secret.strip().casefold()
    return text in _PUBLISHED or PLACEHOLDER.search(text) is not None or _left_to_guess(text) < _MINIMUM_LEFT


def _left_to_guess(text: str) -> int:
    """How many characters a text has for who tries words, runs and repetitions first: each of these counts as one."""
    at = left = 0
    while at < len(text) and left < _MINIMUM_LEFT:
        left += text[at] not in _SEPARATORS
        at += max(1, _word(text, at), _run(text, at), _repetition(text, at))
    return left


def _word(text: str, at: int) -> int:
    """Length of the word of placeholders that begins here; 0 when none does."""
    found = _WORDS.match(text, at)
    return len(found[0]) if found else 0


def _run(text: str, at: int) -> int:
    """Length of the run of neighbours, such as 6789abc or fdsa, that begins here; 0 when none does."""
    end = at + 1
    while end < len(text) and (text[end - 1], text[end]) in _NEIGHBOURS:
        end += 1
    return end - at if end - at >= _SHORTEST_RUN else 0


def _repetition(text: str, at: int) -> int:
    """Length of what begins here and was there before; 0 when it is too short to be more than chance."""
    end = at + _SHORTEST_RUN
    while end <= len(text) and text.find(text[at:end], 0, end - 1) >= 0:
        end += 1
    return end - 1 - at if end > at + _SHORTEST_RUN else 0
