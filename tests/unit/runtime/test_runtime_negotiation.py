"""JSON, or the file in the answer by itself: what an Accept header gets."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import httpx
import pytest

from aiservice_runtime import FileBody
from aiservice_runtime.errors import NotAcceptableError
from aiservice_runtime.negotiation import check_accept, choose_form, preference, read_accept
from support.toy_service import StartToy, Toy, body

PATH = "/api/image-to-text"
PICTURES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
SOUNDS = {"wav": "audio/wav", "mp3": "audio/mpeg", "opus": "audio/ogg; codecs=opus"}


class Wish(FileBody):
    """A body as the engines have them."""

    format: Literal["png", "jpeg", "webp", "wav", "mp3", "opus"] = "png"
    n: int = 1
    stream: bool = False

    @property
    def file_asked_by(self) -> str | None:
        return "stream" if self.stream else None

    @property
    def no_file(self) -> str | None:
        return "One at a time." if self.n > 1 else None


def chosen(*accept: str, files: dict[str, str] = PICTURES, **fields: Any) -> str | None:
    """The format of the file that is the answer; None: JSON."""
    check_accept(accept, files)
    wish = Wish(**fields)
    choose_form(wish, accept, files)
    return wish.file


def refusal(*accept: str, files: dict[str, str] = PICTURES, **fields: Any) -> str:
    with pytest.raises(NotAcceptableError) as caught:
        chosen(*accept, files=files, **fields)
    return caught.value.message


@pytest.mark.parametrize(
    "accept",
    [
        "",
        ",",
        "*/*",
        "application/*",
        "application/json",
        "APPLICATION/JSON;q=0.1",
        "application/json, text/plain, */*",  # axios
        "text/html, application/xhtml+xml, */*;q=0.8",  # a browser's address bar
        "application/json, image/png",  # equally wanted, equally exact
        "application/json, image/*",
        "image/png;q=0.4, application/json;q=0.5",
        "image/png;q=0, */*",
        "image/*;q=0, image, */*;q=0.1",
    ],
)
def test_json_is_the_answer_unless_a_file_is_wanted_more(accept: str) -> None:
    assert chosen(accept) is None
    assert chosen() is None


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("image/*", "png"),
        ("image/png", "png"),
        ("Image/JPEG", "jpeg"),
        ("image/webp,image/jpeg;q=0.9", "webp"),
        ("image/webp;q=0.8,image/jpeg;q=0.9", "jpeg"),
        ("image/png;q=0.1, image/*", "jpeg"),  # the range that names it most exactly decides
        ("image/avif,image/webp,image/apng,image/*,*/*;q=0.8", "webp"),  # <img>
        ("image/*, */*", "png"),  # equally wanted, named more exactly
        ("application/json;q=0.5, image/webp", "webp"),
        ("application/json;q=0, */*", "png"),
        (
            "text/html, image/jpeg;q=nan, image/webp;q=2, image/png;q=0.001",
            "png",
        ),  # a weight that is none weighs nothing
        ('image/gif;a="x,y;z", image/webp', "webp"),
    ],
)
def test_accept_chooses_the_format_where_the_body_states_none(accept: str, kind: str) -> None:
    assert chosen(accept) == kind
    if '"' not in accept:
        assert chosen(*accept.split(",")) == kind, "several headers are one list"


def test_a_stated_format_stays() -> None:
    assert chosen("image/*", format="webp") == "webp"
    assert chosen("image/png, image/webp;q=0.1", format="webp") == "webp"
    assert chosen("image/jpeg, application/json;q=0.1", format="png") is None, "JSON holds any format"
    assert chosen("*/*", format="webp") is None
    sentence = "format is png, which Accept does not take: leave format out, or accept image/png or application/json."
    assert refusal("image/jpeg, image/webp", format="png") == sentence


def test_parameters_of_a_type_must_be_those_of_the_file() -> None:
    for accept in ("audio/ogg", "audio/ogg;codecs=opus", 'audio/ogg; Codecs="Opus"'):
        assert chosen(accept, files=SOUNDS) == "opus"
    assert "audio/ogg; codecs=opus" in refusal("audio/ogg;codecs=vorbis", files=SOUNDS)
    assert preference(read_accept(["audio/ogg;codecs=opus;q=0.2, audio/ogg"]), SOUNDS["opus"]) == (0.2, 4)


def test_what_nothing_can_satisfy_is_known_from_the_headers() -> None:
    for accept in ("text/html", "image/gif", "image", "*/*;q=0", "application/json;q=0, image/*;q=0.0"):
        with pytest.raises(NotAcceptableError, match=r"accept application/json, or one of image/png, image/jpeg"):
            check_accept([accept], PICTURES)
    check_accept(["text/html"], {})


def test_several_files_are_json_or_nothing() -> None:
    assert refusal("image/*", n=2) == "One at a time."
    assert refusal("image/png", n=2, format="jpeg") == "One at a time."
    assert chosen("image/*, application/json;q=0.1", n=2) is None
    assert chosen("*/*", n=2) is None


def test_a_body_that_asks_for_the_file_gets_no_json() -> None:
    assert chosen(files=SOUNDS, stream=True) == "wav"
    assert chosen("*/*", files=SOUNDS, stream=True, format="mp3") == "mp3"
    assert chosen("audio/mpeg", files=SOUNDS, stream=True) == "mp3"
    assert chosen("application/json, audio/ogg;q=0.1", files=SOUNDS, stream=True) == "opus"
    told = refusal("application/json", files=SOUNDS, stream=True)
    assert told.startswith("stream asks for the file itself, which Accept does not take: leave stream out, or accept")
    assert "audio/wav, audio/mpeg" in told
    assert refusal("application/json", files=SOUNDS, stream=True, format="mp3").endswith("or accept audio/mpeg.")
    told = refusal("audio/wav", files=SOUNDS, stream=True, format="mp3")
    assert told == "format is mp3, which Accept does not take: leave format out, or accept audio/mpeg."


async def ask(toy: Toy, accept: str, path: str = PATH, price: str | None = None, **fields: Any) -> httpx.Response:
    headers = {"Accept": accept} | ({"X-AIService-Unit-Price": price} if price else {})
    return await toy.client.post(path, json=body(**fields), headers=headers)


async def test_the_file_itself_is_told_about_in_headers(start_toy: StartToy) -> None:
    toy = await start_toy()
    answer = await ask(toy, "audio/loud", price="0.0000015", say="Ğ 5%\n")
    assert (answer.status_code, answer.content.decode()) == (200, "Ğ 5%\n")
    usual = {"date", "server", "connection", "x-request-id"}
    told = {name: value for name, value in answer.headers.items() if name not in usual}
    assert float(told.pop("x-aiservice-queue-seconds")) >= 0
    assert float(told.pop("x-aiservice-device-seconds")) >= 0
    assert told == {
        "content-type": "audio/loud; level=11",
        "content-length": str(len("Ğ 5%\n".encode())),
        "vary": "Accept",
        "x-aiservice-format": "loud",
        "x-aiservice-said": "%C4%9E 5%25%0A",
        "x-aiservice-units": "1.000",
        "x-aiservice-unit": "image",
        "x-aiservice-tokens": "1",
        "x-aiservice-cost": "0.000002",
    }


async def test_json_says_that_it_varies_and_a_task_without_files_does_not_look(start_toy: StartToy) -> None:
    toy = await start_toy()
    for accept in ("*/*", "application/json"):
        answer = await ask(toy, accept, say="x")
        assert (answer.json()["text"], answer.headers["vary"]) == ("x", "Accept")
        assert "x-aiservice-said" not in answer.headers
    other = await ask(toy, "audio/loud", "/api/speech-to-text", say="x")
    assert other.json()["text"] == "x"
    assert "vary" not in other.headers


async def test_what_cannot_be_accepted_is_refused_before_any_work(start_toy: StartToy) -> None:
    toy = await start_toy()
    toy.engine.events.clear()
    for accept, fields in (
        ("audio/low", {"n": 2}),
        ("audio/low", {"format": "loud"}),
        ("application/json", {"only": 1}),
    ):
        answer = await ask(toy, accept, say="x", **fields)
        assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
        assert answer.headers["content-type"] == "application/json"
        assert (answer.headers["vary"], answer.headers["x-aiservice-units"]) == ("Accept", "0")
    assert toy.engine.events == []
    assert toy.metric("aiservice_request_seconds_count", task="image-to-text", outcome="not_acceptable") == 3


async def test_a_body_is_not_awaited_that_nothing_can_answer(start_toy: StartToy) -> None:
    toy = await start_toy()
    reader, writer = await asyncio.open_connection("127.0.0.1", toy.port)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\nAccept: a/b\r\n\r\n"
    )
    writer.write(head.encode())
    try:
        assert b" 406 " in await asyncio.wait_for(reader.readline(), 10)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_streamed_file_tells_what_is_known_before_it_begins(start_toy: StartToy) -> None:
    toy = await start_toy()
    answer = await ask(toy, "audio/*", price="2", say="a", stream=1, known=7)
    assert answer.headers["x-aiservice-tokens"] == "7"
    assert (answer.headers["x-aiservice-said"], answer.headers["x-aiservice-cost"]) == ("a", "4.000000")
    assert answer.headers["vary"] == "Accept"
