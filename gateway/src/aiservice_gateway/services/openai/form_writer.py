"""Writes multipart forms as the services read them (RFC 7578)."""

from __future__ import annotations

import secrets


class FormWriter:
    """One form. What a client named its files, or said that they are, is not passed on."""

    def __init__(self) -> None:
        self._boundary = f"aiservice-{secrets.token_hex(16)}"  # no client can write it into a file
        self.content_type = f"multipart/form-data; boundary={self._boundary}"
        self.file_end = b"\r\n"
        self.end = f"--{self._boundary}--\r\n".encode()

    def file(self, name: str) -> bytes:
        """What comes before a file's bytes; `file_end` comes after them."""
        return self._head(f'{name}"; filename="upload"\r\nContent-Type: application/octet-stream')

    def text(self, name: str, value: str) -> bytes:
        """A text part."""
        return self._head(f'{name}"') + value.encode() + b"\r\n"

    def _head(self, rest: str) -> bytes:
        return f'--{self._boundary}\r\nContent-Disposition: form-data; name="{rest}\r\n\r\n'.encode()
