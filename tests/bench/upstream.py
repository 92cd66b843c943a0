"""An engine that computes nothing: `python upstream.py PORT` answers every POST with one small transcript."""

from __future__ import annotations

import sys

import uvicorn
from starlette.types import Receive, Scope, Send

_BODY = (
    b'{"request_id":"r","text":"hello","language":"en","duration":2.5,"segments":[],'
    b'"usage":{"units":2.5,"unit":"audio-second","tokens":7,"cost":0.0001}}'
)
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_BODY)).encode()),
    (b"x-aiservice-units", b"2.5"),
    (b"x-aiservice-unit", b"audio-second"),
    (b"x-aiservice-tokens", b"7"),
    (b"x-aiservice-device-seconds", b"0"),
]


async def answer(_: Scope, receive: Receive, send: Send) -> None:
    """Reads the request to its end and answers; /ready gets the same."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


if __name__ == "__main__":
    uvicorn.run(
        answer, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", lifespan="off",
        log_level="warning", access_log=False,
    )  # fmt: skip
