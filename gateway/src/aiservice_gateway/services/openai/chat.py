"""`/v1/chat/completions`: one message with an image, for its caption, its text, or the answer to a question."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import orjson
from pydantic import Field, JsonValue

from aiservice_api.tasks import Task
from aiservice_gateway.errors import ParameterError
from aiservice_gateway.services.openai.answers import DONE, EVENTS, Answered, Document, Rewriter, event
from aiservice_gateway.services.openai.parameters import MISSING, UNSUPPORTED, Parameters, Taken, only, without_nothing

_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]+;base64,([0-9]+)", re.IGNORECASE)
"""As `bodies.JsonBody` leaves it: the number stands for the image."""

_WORD = re.compile(r"\s*\S+")
_TEXT_ONLY = "the services write plain text"
_GREEDY = "the services take the likeliest words"
_NO_TOOLS = "the services call no tools"
_MESSAGES = "messages"


class Chat(Parameters):
    """Parameters of POST /v1/chat/completions."""

    task: ClassVar[Task] = Task.IMAGE_TO_TEXT
    taken: ClassVar[frozenset[bytes]] = frozenset({b"url"})
    harmless: ClassVar[frozenset[str]] = frozenset(
        {
            "user",
            "safety_identifier",
            "metadata",
            "seed",  # the same image and question have the same answer anyway
            "service_tier",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "parallel_tool_calls",
        }
    )
    impossible: ClassVar[dict[str, str]] = {
        "audio": _TEXT_ONLY,
        "function_call": _NO_TOOLS,
        "functions": _NO_TOOLS,
        "logit_bias": _GREEDY,
        "logprobs": "the services tell none",
        "moderation": "the services moderate nothing",
        "prediction": _TEXT_ONLY,
        "reasoning_effort": "the services do not reason",
        "stop": "an answer ends where the model ends it",
        "store": "nothing is stored",
        "tool_choice": _NO_TOOLS,
        "tools": _NO_TOOLS,
        "top_logprobs": "the services tell none",
        "verbosity": "an answer is as long as the model makes it",
        "web_search_options": _NO_TOOLS,
    }

    messages: list[dict[str, JsonValue]] = Field(min_length=1)
    """One message of the user: one image as a `data:` URL, and perhaps a text, which is a question about it."""
    stream: bool | None = None
    """Whether to answer in server-sent events; the text comes in one piece."""
    stream_options: dict[str, JsonValue] | None = None
    """`include_usage`: whether the events tell the usage."""
    max_tokens: int | None = Field(None, ge=1)
    """Of the answer: where the model wrote more, it is cut to as many words."""
    max_completion_tokens: int | None = Field(None, ge=1)
    """The newer name of `max_tokens`."""
    n: Annotated[int | None, only(1, why="there is one answer"), Field(json_schema_extra={"enum": [1]})] = None
    """How many answers."""
    temperature: Annotated[float | None, only(0, 1, why=_GREEDY), Field(json_schema_extra={"enum": [0, 1]})] = None
    """How freely to choose words. 1 is OpenAI's default, which many clients send; the likeliest are chosen anyway."""
    top_p: Annotated[float | None, only(1, why=_GREEDY), Field(json_schema_extra={"enum": [1]})] = None
    """Out of which words to choose."""
    frequency_penalty: Annotated[float | None, only(0, why=_GREEDY), Field(json_schema_extra={"enum": [0]})] = None
    """Against repetition."""
    presence_penalty: Annotated[float | None, only(0, why=_GREEDY), Field(json_schema_extra={"enum": [0]})] = None
    """Against repetition."""
    response_format: Annotated[
        dict[str, JsonValue] | None,
        only({"type": "text"}, why=_TEXT_ONLY),
        Field(json_schema_extra={"enum": [{"type": "text"}]}),
    ] = None
    """What the answer is."""
    modalities: Annotated[
        list[str] | None, only(["text"], why=_TEXT_ONLY), Field(json_schema_extra={"enum": [["text"]]})
    ] = None
    """What the answer is."""
    caption: bool | None = None
    """Not OpenAI's: whether to caption, where there is no question; as the service can, when left out."""
    ocr: bool | None = None
    """Not OpenAI's: whether to read the text in the image; as the service can, when left out and nothing is asked."""

    def native(self) -> dict[str, Any]:
        """The service's fields."""
        image, question = _asked(self.messages)
        if question is None:
            return without_nothing(image=image, caption=self.caption, ocr=self.ocr)
        # The words that BLIP-2 was trained to answer after.
        prompt = question if question.startswith("Question:") else f"Question: {question} Answer:"
        return {"image": image, "prompt": prompt, "caption": True, "ocr": bool(self.ocr)}

    def rewriter(self, answered: Answered) -> Rewriter:
        """Makes a completion, or its events."""
        if self.stream:
            return Document(lambda seen: b"".join(self._events(seen, answered)), EVENTS)
        return Document(lambda seen: orjson.dumps(self._completion(seen, answered)))

    def _completion(self, seen: dict[str, Any], answered: Answered) -> dict[str, Any]:
        text, reason = self._text(seen)
        message = {"role": "assistant", "content": text, "refusal": None}
        return {
            **_head("chat.completion", answered),
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
            "usage": _usage(seen),
        }

    def _events(self, seen: dict[str, Any], answered: Answered) -> Iterable[bytes]:
        text, reason = self._text(seen)
        head = _head("chat.completion.chunk", answered)
        for delta, finish in (({"role": "assistant", "content": ""}, None), ({"content": text}, None), ({}, reason)):
            yield event({**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]})
        if (self.stream_options or {}).get("include_usage"):
            yield event({**head, "choices": [], "usage": _usage(seen)})
        yield DONE

    def _text(self, seen: dict[str, Any]) -> tuple[str, str]:
        """What is answered, and why it ends."""
        parts: list[str] = [part for part in (seen["caption"], seen["text"]) if part]
        text = "\n\n".join(parts)
        most = self.max_completion_tokens or self.max_tokens
        if most is None or seen["usage"]["tokens"] <= most:
            return text, "stop"
        words = _WORD.findall(text)[:most]
        return "".join(words), "length"


def _asked(messages: list[dict[str, Any]]) -> tuple[Taken, str | None]:
    """The image and the question in a conversation.

    Raises:
        ParameterError: it is more than that, or less.
    """
    if len(messages) != 1 or messages[0].get("role") != "user":
        raise ParameterError(
            "messages must be one message of the role user: the services know no instructions and no conversation.",
            _MESSAGES,
            UNSUPPORTED,
        )
    content = messages[0].get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    images: list[Taken] = []
    texts: list[str] = []
    for part in parts:
        kind, text = (part.get("type"), part.get("text")) if isinstance(part, dict) else (None, None)
        if kind == "image_url":
            images.append(_image(part.get("image_url")))
        elif kind == "text" and isinstance(text, str):
            texts.append(text)
        else:
            raise ParameterError("messages: parts must be of the type text or image_url.", _MESSAGES)
    if len(images) != 1:
        missing = MISSING if not images else UNSUPPORTED
        raise ParameterError(f"messages must have one image; there are {len(images)}.", _MESSAGES, missing)
    return images[0], "\n".join(texts).strip() or None


def _image(given: object) -> Taken:
    url = given.get("url") if isinstance(given, dict) else None
    if not isinstance(url, str):
        raise ParameterError("messages: an image_url must be an object with a url.", _MESSAGES)
    match = _DATA_URL.fullmatch(url)
    if match is None:
        raise ParameterError(
            "messages: an image must be in its url, as data:image/png;base64,...; addresses are never fetched.",
            _MESSAGES,
        )
    return Taken(int(match[1]))


def _head(kind: str, answered: Answered) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answered.request_id}",
        "object": kind,
        "created": answered.created,
        "model": answered.service,
    }


def _usage(seen: dict[str, Any]) -> dict[str, int]:
    tokens = seen["usage"]["tokens"]
    return {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens}
