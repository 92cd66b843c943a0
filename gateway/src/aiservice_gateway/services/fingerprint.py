"""What tells whether two requests are the same one: a hash over a body that is never whole in memory."""

from __future__ import annotations

import hashlib
from typing import Final

from multipart import parse_options_header
from starlette.datastructures import Headers

_FORM: Final = "multipart/form-data"


_FILES: Final = ("image/", "audio/")
"""What an Accept names that may get another answer than JSON."""


class Fingerprint:
    """Of one request.

    A form's boundary does not count: clients draw a new one each time that they send it. Accept counts where it asks
    for a picture or a sound by itself.
    """

    def __init__(self, query: bytes, headers: Headers) -> None:
        """Knows the request's target and types, and nothing of its body."""
        media_type, options = parse_options_header(headers.get("content-type", ""))
        boundary = options.get("boundary", "") if media_type == _FORM else ""
        self._boundary = f"--{boundary}".encode() if boundary else b""
        accept = ",".join(headers.getlist("accept")).lower()
        wanted = f"\0{accept}" if any(kind in accept for kind in _FILES) else ""  # no type has a NUL
        self._hash = hashlib.sha256(len(query).to_bytes(8, "big") + query + f"{media_type}{wanted}\n".encode())
        self._tail = b""

    def add(self, data: bytes) -> None:
        """Takes the next bytes of the body."""
        if not self._boundary:
            self._hash.update(data)
            return
        data = (self._tail + data).replace(self._boundary, b"--")
        whole = max(0, len(data) - len(self._boundary) + 1)  # what follows may be the beginning of a boundary
        self._hash.update(data[:whole])
        self._tail = data[whole:]

    def digest(self) -> str:
        """In hexadecimal, once the whole body was taken."""
        whole = self._hash.copy()
        whole.update(self._tail)
        return whole.hexdigest()
