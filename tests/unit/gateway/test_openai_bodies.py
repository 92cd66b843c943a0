"""Bodies on their way in: how far they are read, what is passed on, what is held, what is refused."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from aiservice_gateway.errors import (
    BadRequestError,
    GatewayError,
    ParameterError,
    PayloadTooLargeError,
    UnavailableError,
    UnsupportedMediaError,
)
from aiservice_gateway.services.openai.bodies import Body, open_body
from aiservice_gateway.services.openai.chat import Chat
from aiservice_gateway.services.openai.held import Held, Room
from aiservice_gateway.services.openai.images import ImageEdit, ImageGeneration
from aiservice_gateway.services.openai.parameters import Parameters
from aiservice_gateway.services.openai.transcriptions import Transcription
from aiservice_gateway.services.upload import ClientGoneError

ROOM = 10 * 1024 * 1024
FORM = {"content-type": "multipart/form-data; boundary=b"}
JSON = {"content-type": "application/json"}


class Client:
    """The client's side of a request: sends its chunks, then waits, and notes what was taken."""

    def __init__(self, chunks: Iterable[bytes], *, gone: bool = False) -> None:
        self._chunks = list(chunks)
        self._gone = gone
        self.taken = 0

    async def receive(self) -> Message:
        if self.taken < len(self._chunks):
            self.taken += 1
            last = self.taken == len(self._chunks) and not self._gone
            return {"type": "http.request", "body": self._chunks[self.taken - 1], "more_body": not last}
        return {"type": "http.disconnect"}


def part(name: str, content: bytes | str, filename: str | None = None, headers: str = "") -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    data = content.encode() if isinstance(content, str) else content
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n{headers}\r\n'.encode() + data + b"\r\n"


END = b"--b--\r\n"


def opened(
    kind: type[Parameters],
    chunks: Iterable[bytes],
    headers: Mapping[str, str] = FORM,
    *,
    room: Room | None = None,
    gone: bool = False,
) -> tuple[Body, Client]:
    client = Client(chunks, gone=gone)
    return open_body(kind, Headers(headers), client.receive, room or Room(ROOM)), client


async def passed_on(body: Body) -> AsyncIterator[bytes]:
    while True:
        message = await body.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        yield message["body"]
        if not message["more_body"]:
            return


def parts_of(body: Body, content: bytes) -> dict[str, bytes]:
    """The parts of a form, by an other parser than the gateway's."""
    raw = f"Content-Type: {body.content_type}\r\n\r\n".encode() + content
    message = email.message_from_bytes(raw, policy=email.policy.HTTP)
    parts: dict[str, bytes] = {}
    for each in message.walk():
        if not each.is_multipart():
            content_of = each.get_payload(decode=True)
            assert isinstance(content_of, bytes)
            parts[str(each.get_param("name", header="content-disposition"))] = content_of
    return parts


async def translated(kind: type[Parameters], chunks: Iterable[bytes], **more: Any) -> tuple[Body, dict[str, bytes]]:
    body, _ = opened(kind, chunks, **more)
    try:
        await body.begin()
        content = b"".join([chunk async for chunk in passed_on(body)])
        return body, parts_of(body, content)
    finally:
        await body.close()


SOUND = bytes(range(256)) * 3000 + b"\r\n--a\r\n--\r\n-\r"
ORDERS: dict[str, Callable[[], list[bytes]]] = {
    "fields first": lambda: [part("model", "m"), part("language", "de"), part("file", SOUND, "a.wav"), END],
    "file first": lambda: [part("file", SOUND, "a.wav"), part("model", "m"), part("language", "de"), END],
    "file between": lambda: [part("model", "m"), part("file", SOUND, "a.wav"), part("language", "de"), END],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [1000, 65536, 10_000_000])
async def test_a_form_in_any_order_and_any_pieces(order: str, size: int) -> None:
    whole = b"".join(ORDERS[order]())
    chunks = [whole[at : at + size] for at in range(0, len(whole), size)]
    body, parts = await translated(Transcription, chunks)
    assert parts == {"file": SOUND, "format": b"json", "language": b"de"}
    assert body.model == "m"


async def test_one_byte_at_a_time() -> None:
    whole = part("model", "m") + part("file", b"\r\n--x\r", "a.wav") + END + b"\r\n"
    _, parts = await translated(Transcription, [whole[at : at + 1] for at in range(len(whole))])
    assert parts == {"file": b"\r\n--x\r", "format": b"json"}


async def test_a_file_behind_its_model_is_passed_on_as_it_arrives() -> None:
    room = Room(0)
    chunks = [part("model", "m") + part("file", b"", "a.wav")[:-2], *[b"x" * 1000] * 50, b"\r\n" + END]
    body, client = opened(Transcription, chunks, room=room)
    await body.begin()
    assert client.taken == 1
    seen = 0
    async for chunk in passed_on(body):
        seen += chunk.count(b"x" * 1000)
        assert client.taken <= seen + 2
    assert seen == 50


async def test_a_file_before_its_model_is_held_and_let_go_of() -> None:
    room = Room(len(SOUND))
    body, _ = opened(Transcription, ORDERS["file first"](), room=room)
    await body.begin()
    with pytest.raises(UnavailableError):
        room.take(1)
    await body.close()
    await body.close()
    room.take(len(SOUND))


async def test_more_than_there_is_room_for_is_refused_with_advice() -> None:
    body, _ = opened(Transcription, ORDERS["file first"](), room=Room(1000))
    with pytest.raises(UnavailableError, match="send the model and the other fields before"):
        await body.begin()
    await body.close()


async def test_without_a_model_everything_is_read_first() -> None:
    body, parts = await translated(Transcription, [part("file", b"abc", "a.wav"), END])
    assert (body.model, parts["file"]) == (None, b"abc")


async def test_image_and_mask() -> None:
    chunks = [part("mask", b"M" * 9, "m"), part("model", "m"), part("image[]", b"I" * 9, "i"), part("prompt", "p"), END]
    _, parts = await translated(ImageEdit, chunks)
    assert parts == {"mask": b"M" * 9, "file": b"I" * 9, "prompt": b"p", "format": b"png"}


async def test_what_a_client_calls_its_file_goes_nowhere() -> None:
    name = "../a%0D%0Ax: y\\é.wav"
    body, _ = opened(Transcription, [part("model", "m"), part("file", b"abc", name, "Content-Type: x/y\r\n"), END])
    await body.begin()
    content = b"".join([chunk async for chunk in passed_on(body)])
    assert content.count(b'filename="upload"\r\nContent-Type: application/octet-stream\r\n') == 1
    assert b"language" not in content
    assert b"x/y" not in content


HOSTILE: list[tuple[list[bytes], type[GatewayError], str]] = [
    ([b""], BadRequestError, "Unexpected end"),
    ([part("model", "m")], BadRequestError, "Unexpected end"),
    ([part("model", "m"), part("file", b"abc", "a")[:-5]], BadRequestError, "Unexpected end"),
    ([b"--c\r\n\r\n--c--"], BadRequestError, "Unexpected end"),
    ([b"nonsense"], BadRequestError, "Unexpected end"),
    ([b"--b\r\nno header\r\n\r\n"], BadRequestError, "Malformed"),
    ([b"--b\r\nContent-Type: a/b\r\n\r\nx\r\n", END], BadRequestError, "Content-Disposition"),
    ([b"--b\r\nContent-Disposition: attachment\r\n\r\nx\r\n", END], BadRequestError, "Content-Disposition"),
    ([b"--b\r\n" + b"X-A: b\r\n" * 100], BadRequestError, "header"),
    ([b"--b\r\nX: " + b"a" * 10_000], BadRequestError, "header"),
    ([part("language", "")] * 10_000, ParameterError, "more than once"),
    ([part("include[]", "")] * 10_000, BadRequestError, "segment count"),
    ([part("model", "a"), part("model", "b"), END], ParameterError, "model is given more than once"),
    ([part("model", "a"), part("file", b"x", "a"), part("model", "b"), END], ParameterError, "model is given more"),
    ([part("file", b"x", "a"), part("file", b"x", "a"), END], ParameterError, "More than one file"),
    ([part("language", b"\xff\xfe"), END], ParameterError, "language is not UTF-8"),
    ([part("language", "x" * 1_100_000), END], PayloadTooLargeError, "texts of the form"),
    ([part("file", "abc"), END], ParameterError, "file must be a file"),
    ([part("model", b"abc", "a"), END], ParameterError, "model is not taken as a file"),
    ([part("colour", "red"), END], ParameterError, "There is no parameter 'colour'"),
    ([part("", "red"), END], ParameterError, "There is no parameter ''"),
    ([part('file"; name="colour', "red"), END], ParameterError, "There is no parameter 'colour'"),
    ([part("colour", b"x", "red"), END], ParameterError, "There is no parameter 'colour'"),
    ([part("model", "m"), END], ParameterError, "The file file is missing"),
    ([part("model[]", "m"), part("file", b"x", "a"), END], ParameterError, "model"),
    ([part("model", "m"), part("response_format", "gif"), part("file", b"x", "a")], ParameterError, "response_format"),
    (
        [part("file", b"x", "a", "Content-Type: multipart/mixed; boundary=c\r\n"), part("language", "x" * 3), b"--b-"],
        BadRequestError,
        "Unexpected end",
    ),
]


@pytest.mark.parametrize(("chunks", "kind", "sentence"), HOSTILE)
async def test_a_bad_form_is_refused_with_a_sentence(
    chunks: list[bytes], kind: type[GatewayError], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        await translated(Transcription, chunks)


async def test_a_second_image_is_refused_by_name() -> None:
    chunks = [part("model", "m"), part("image[]", b"x", "a"), part("image[]", b"x", "b"), END]
    with pytest.raises(ParameterError, match="More than one image is sent, and the service takes one") as caught:
        await translated(ImageEdit, chunks)
    assert caught.value.param == "image"


@pytest.mark.parametrize(
    ("kind", "headers", "error"),
    [
        (Transcription, JSON, UnsupportedMediaError),
        (Transcription, {}, UnsupportedMediaError),
        (Transcription, {"content-type": "multipart/form-data"}, BadRequestError),
        (Transcription, {"content-type": 'multipart/form-data; boundary=""'}, BadRequestError),
        (Transcription, {"content-type": 'multipart/form-data; boundary="a\nb"'}, BadRequestError),
        (Transcription, {**FORM, "content-encoding": "gzip"}, UnsupportedMediaError),
        (ImageGeneration, FORM, UnsupportedMediaError),
        (ImageGeneration, {"content-type": "text/plain"}, UnsupportedMediaError),
    ],
)
def test_bodies_that_are_not_read(kind: type[Parameters], headers: dict[str, str], error: type[GatewayError]) -> None:
    with pytest.raises(error):
        opened(kind, [], headers)


def chat(url: str, text: str = "What?", **more: Any) -> bytes:
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return json.dumps({"messages": [{"role": "user", "content": content}], "model": "m", **more}).encode()


@pytest.mark.parametrize("size", [7, 4096, 10_000_000])
async def test_an_image_in_json_is_held_and_not_read(size: int) -> None:
    whole = chat("data:image/png;base64," + "QUJD" * 50_000).replace(b"image/png", b"image\\/png")
    body, _ = opened(Chat, [whole[at : at + size] for at in range(0, len(whole), size)], JSON)
    await body.begin()
    assert body.model == "m"
    document = json.loads(b"".join([chunk async for chunk in passed_on(body)]))
    assert document == {"caption": True, "ocr": False, "prompt": "Question: What? Answer:", "image": "QUJD" * 50_000}
    await body.close()


async def test_an_image_alone() -> None:
    body, _ = opened(Chat, [chat("data:image/png;base64,QUJD", "")], JSON)
    await body.begin()
    assert json.loads(b"".join([chunk async for chunk in passed_on(body)])) == {"image": "QUJD"}
    await body.close()


@pytest.mark.parametrize(
    ("whole", "kind", "sentence"),
    [
        (b"", BadRequestError, "not valid JSON"),
        (b"{", BadRequestError, "not valid JSON"),
        (b'{"prompt": NaN}', BadRequestError, "not valid JSON"),
        (b"[" * 100_000, BadRequestError, "not valid JSON"),
        (b"[]", BadRequestError, "must be a JSON object"),
        (b'{"model": "\xff"}', BadRequestError, "not valid JSON"),
        (b'{"user": "' + b"x" * 1_100_000 + b'"}', PayloadTooLargeError, "larger than"),
        (chat("http://169.254.169.254/latest"), ParameterError, "never fetched"),
        (chat("https://example.org/" + "a" * 3000), BadRequestError, "never fetched"),
        (chat("data:image/png;base64,QUJD").replace(b'"url"', b'"ur\\u006c"'), ParameterError, "never fetched"),
        (chat("data:image/png;base64,0").replace(b'"url"', b'"ur\\u006c"'), BadRequestError, "with escapes"),
        (chat("data:image/png;base64,", tools=[{"url": "x,y"}] * 17), BadRequestError, "more than 16"),
    ],
)
async def test_bad_json_is_refused_with_a_sentence(whole: bytes, kind: type[GatewayError], sentence: str) -> None:
    body, _ = opened(Chat, [whole], JSON)
    with pytest.raises(kind, match=sentence):
        await body.begin()
    await body.close()


async def test_a_client_that_goes_away_while_it_is_read() -> None:
    body, _ = opened(Transcription, [part("model", "m")], gone=True)
    with pytest.raises(ClientGoneError):
        await body.begin()
    assert body.gone
    body, _ = opened(Transcription, [part("model", "m"), part("file", b"abc", "a")], gone=True)
    await body.begin()
    with pytest.raises(ClientGoneError):
        [chunk async for chunk in passed_on(body)]
    await body.close()


async def test_held_bytes_come_back_from_memory_and_disk() -> None:
    for sizes in ([10], [65_536], [65_537], [100, 300_000, 100, 700_000, 5]):
        room = Room(ROOM)
        held = Held(room)
        contents = [bytes([number]) * size for number, size in enumerate(sizes)]
        for content in contents:
            await held.add(content)
        assert b"".join([chunk async for chunk in held.chunks()]) == b"".join(contents)
        held.close()
        room.take(ROOM)


async def test_a_disk_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aiservice_gateway.services.openai.held.tempfile.TemporaryFile", full)
    held = Held(Room(ROOM))
    with pytest.raises(UnavailableError, match="no room on its disk"):
        await held.add(b"x" * 100_000)
    held.close()


async def test_a_reader_that_is_cancelled_leaves_nothing_open() -> None:
    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    body = open_body(Transcription, Headers(FORM), never, Room(ROOM))
    reading = asyncio.create_task(body.begin())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await body.close()
