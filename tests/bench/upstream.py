"""An engine that computes nothing, on uvicorn as the runtime is: `python upstream.py PORT`.

POST .../text-to-speech    sound, 1 kB every second for a minute: a slow stream
POST /v1/...               one small picture in OpenAI's shape
anything else              one small picture in the runtime's
"""

from __future__ import annotations

import asyncio
import sys

import uvicorn
from starlette.types import Receive, Scope, Send

_PICTURE = b"iVBORw0KGgo" + b"A" * 1024
_NATIVE = (
    b'{"request_id":"r","images":[{"b64":"%b","format":"png","width":64,"height":64,"seed":1}],'
    b'"usage":{"units":1,"unit":"image","tokens":7,"cost":0.003}}'
) % _PICTURE
_OPENAI = b'{"created":1764000000,"data":[{"b64_json":"%b"}]}' % _PICTURE
_PIECES = 60


def _headers(kind: bytes, units: bytes, unit: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", kind),
        (b"x-aiservice-units", units),
        (b"x-aiservice-unit", unit),
        (b"x-aiservice-tokens", b"7"),
        (b"x-aiservice-device-seconds", b"0"),
    ]


_IMAGE_HEADERS = _headers(b"application/json", b"1", b"image")
_SOUND_HEADERS = _headers(b"audio/pcm", b"110", b"character")


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the request to its end and answers."""
    while (await receive()).get("more_body"):
        pass
    if scope["path"].endswith("/text-to-speech"):
        await send({"type": "http.response.start", "status": 200, "headers": _SOUND_HEADERS})
        for _ in range(_PIECES):
            await send({"type": "http.response.body", "body": b"x" * 1024, "more_body": True})
            await asyncio.sleep(1)
        await send({"type": "http.response.body", "body": b""})
        return
    body = _OPENAI if scope["path"].startswith("/v1/") else _NATIVE
    headers = [*_IMAGE_HEADERS, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        answer, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", lifespan="off",
        log_level="warning", access_log=False,
    )  # fmt: skip
