"""What OpenAI's parameters become on the way to the services, and which are refused."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from aiservice_gateway.errors import ParameterError
from aiservice_gateway.services.openai.chat import Chat
from aiservice_gateway.services.openai.images import ImageEdit, ImageGeneration
from aiservice_gateway.services.openai.parameters import Parameters, Taken, form_fields
from aiservice_gateway.services.openai.speech import Speech
from aiservice_gateway.services.openai.transcriptions import Transcription, Translation

REPOSITORY = Path(__file__).parents[3]
KINDS = (ImageGeneration, ImageEdit, Speech, Transcription, Translation, Chat)


def image_message(*texts: str, url: str = "data:image/png;base64,0", images: int = 1) -> list[dict[str, Any]]:
    parts = [{"type": "text", "text": text} for text in texts]
    return [
        {"role": "user", "content": [*parts, *([{"type": "image_url", "image_url": {"url": url}}] * images)]},
    ]


TRANSLATED: list[tuple[type[Parameters], dict[str, Any], dict[str, Any]]] = [
    (ImageGeneration, {"prompt": "a"}, {"prompt": "a", "format": "png"}),
    (ImageGeneration, {"prompt": "a", "model": "m", "user": "u", "n": 2}, {"prompt": "a", "n": 2, "format": "png"}),
    (ImageGeneration, {"prompt": "a", "size": "auto", "quality": "auto"}, {"prompt": "a", "format": "png"}),
    (
        ImageGeneration,
        {"prompt": "a", "size": "64x32", "output_format": "webp", "output_compression": 0, "seed": 3},
        {"prompt": "a", "size": "64x32", "format": "webp", "quality": 1, "seed": 3},
    ),
    (
        ImageGeneration,
        {
            "prompt": "a",
            "response_format": "b64_json",
            "background": "opaque",
            "moderation": "auto",
            "quality": "standard",
            "stream": False,
            "partial_images": 0,
            "n": None,
            "steps": 4,
            "guidance": 2.5,
            "negative_prompt": "b",
            "style": "anime",
        },
        {"prompt": "a", "format": "png", "steps": 4, "guidance": 2.5, "negative_prompt": "b", "style": "anime"},
    ),
    (
        ImageEdit,
        {"prompt": "a", "n": "2", "strength": "0.5"},
        {"prompt": "a", "n": 2, "format": "png", "strength": 0.5},
    ),
    (ImageEdit, {"prompt": "a", "stream": "false", "user": ["u"]}, {"prompt": "a", "format": "png"}),
    (Speech, {"input": "hi", "voice": "default"}, {"text": "hi", "format": "mp3", "stream": True}),
    (
        Speech,
        {"input": "hi", "voice": {"id": "Ana"}, "speed": 2, "response_format": "pcm", "stream_format": "sse"},
        {"text": "hi", "voice": "Ana", "speed": 2, "format": "pcm", "stream": True},
    ),
    (
        Speech,
        {"input": "hi", "voice": "Ana", "instructions": "", "language": "de", "seed": 1},
        {"text": "hi", "voice": "Ana", "format": "mp3", "language": "de", "seed": 1, "stream": True},
    ),
    (Transcription, {}, {"format": "json"}),
    (Transcription, {"prompt": "", "temperature": "0", "language": "de"}, {"format": "json", "language": "de"}),
    (
        Transcription,
        {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]},
        {"format": "verbose_json", "timestamps": "word"},
    ),
    (
        Transcription,
        {"response_format": "verbose_json", "timestamp_granularities": "segment"},
        {"format": "verbose_json"},
    ),
    (Transcription, {"stream": "true", "chunking_strategy": "auto"}, {"format": "json", "stream": True}),
    (Transcription, {"stream": "true", "response_format": "text"}, {"format": "json", "stream": True}),
    (Transcription, {"stream": "false", "response_format": "srt"}, {"format": "srt"}),
    (Translation, {"response_format": "vtt"}, {"format": "vtt", "translate": True}),
    (Chat, {"messages": image_message()}, {"image": Taken(0)}),
    (
        Chat,
        {"messages": image_message(), "ocr": True, "caption": False},
        {"image": Taken(0), "caption": False, "ocr": True},
    ),
    (Chat, {"messages": image_message(" ", "")}, {"image": Taken(0)}),
    (
        Chat,
        {"messages": image_message("How many?"), "max_tokens": 300, "temperature": 0, "tools": [], "seed": 3},
        {"image": Taken(0), "prompt": "Question: How many? Answer:", "caption": True, "ocr": False},
    ),
    (
        Chat,
        {"messages": image_message("Question: a? Answer: b. Question: c? Answer:")},
        {
            "image": Taken(0),
            "prompt": "Question: a? Answer: b. Question: c? Answer:",
            "caption": True,
            "ocr": False,
        },
    ),
    (Chat, {"messages": image_message(url="DATA:image/svg+xml;base64,7")}, {"image": Taken(7)}),
    (
        Chat,
        {
            "messages": image_message(),
            "response_format": {"type": "text"},
            "modalities": ["text"],
            "top_p": 1,
            "n": 1,
            "presence_penalty": 0,
            "frequency_penalty": 0.0,
            "metadata": {"a": "b"},
            "store": False,
            "logit_bias": {},
            "stream_options": None,
        },
        {"image": Taken(0)},
    ),
]


@pytest.mark.parametrize(("kind", "given", "native"), TRANSLATED)
def test_what_a_service_is_asked(kind: type[Parameters], given: dict[str, Any], native: dict[str, Any]) -> None:
    assert kind.read(given).native() == native


REFUSED: list[tuple[type[Parameters], dict[str, Any], str, str, str]] = [
    (ImageGeneration, {}, "prompt", "missing_required_parameter", "missing"),
    (ImageGeneration, {"prompt": None}, "prompt", "missing_required_parameter", "missing"),
    (ImageGeneration, {"prompt": ""}, "prompt", "invalid_value", "at least 1 character"),
    (ImageGeneration, {"prompt": 5}, "prompt", "invalid_value", "valid string"),
    (ImageGeneration, {"prompt": "a", "colour": 1}, "colour", "unknown_parameter", "there are background"),
    (ImageGeneration, {"prompt": "a", "x" * 99: 1}, "x" * 64, "unknown_parameter", "x"),
    (
        ImageGeneration,
        {"prompt": "a", "response_format": "url"},
        "response_format",
        "invalid_value",
        "nothing is stored",
    ),
    (ImageGeneration, {"prompt": "a", "n": 0}, "n", "invalid_value", "greater than or equal to 1"),
    (ImageGeneration, {"prompt": "a", "size": "big"}, "size", "invalid_value", "match pattern"),
    (ImageGeneration, {"prompt": "a", "quality": "hd"}, "quality", "invalid_value", "ask for more with steps"),
    (ImageGeneration, {"prompt": "a", "background": "transparent"}, "background", "invalid_value", "no transparency"),
    (ImageGeneration, {"prompt": "a", "moderation": "low"}, "moderation", "invalid_value", "the service decides"),
    (ImageGeneration, {"prompt": "a", "stream": True}, "stream", "unsupported_parameter", "when they are finished"),
    (ImageGeneration, {"prompt": "a", "partial_images": 2}, "partial_images", "unsupported_parameter", "finished"),
    (ImageGeneration, {"prompt": "a", "output_format": "svg"}, "output_format", "invalid_value", "'png'"),
    (
        ImageGeneration,
        {"prompt": "a", "output_compression": 50},
        "output_compression",
        "invalid_value",
        "jpeg and webp",
    ),
    (ImageEdit, {"prompt": "a", "moderation": "auto"}, "moderation", "unknown_parameter", "strength"),
    (ImageEdit, {"prompt": "a", "input_fidelity": "high"}, "input_fidelity", "unsupported_parameter", "use strength"),
    (Speech, {"input": "a", "voice": 3}, "voice", "invalid_value", "valid string"),
    (Speech, {"input": "a", "voice": {"id": "b", "c": 1}}, "voice", "invalid_value", "valid string"),
    (Speech, {"input": "a", "instructions": "whisper"}, "instructions", "unsupported_parameter", "choose a voice"),
    (Speech, {"input": "a", "response_format": "aac"}, "response_format", "invalid_value", "'mp3'"),
    (Speech, {"input": "a", "speed": 9}, "speed", "invalid_value", "less than or equal to 4"),
    (Transcription, {"prompt": "Names: Ada"}, "prompt", "unsupported_parameter", "no text to go on from"),
    (Transcription, {"temperature": "0.4"}, "temperature", "invalid_value", "only 0 is supported"),
    (Transcription, {"temperature": "nan"}, "temperature", "invalid_value", "finite"),
    (Transcription, {"include": ["logprobs"]}, "include", "unsupported_parameter", "no logprobs"),
    (Transcription, {"timestamp_granularities": ["word"]}, "timestamp_granularities", "invalid_value", "verbose_json"),
    (Transcription, {"stream": "true", "response_format": "srt"}, "stream", "invalid_value", "json or text"),
    (Transcription, {"response_format": "diarized_json"}, "response_format", "invalid_value", "'json'"),
    (Translation, {"language": "de"}, "language", "unknown_parameter", "response_format"),
    (Chat, {"messages": "hi"}, "messages", "invalid_value", "valid list"),
    (Chat, {"messages": []}, "messages", "invalid_value", "at least 1 item"),
    (Chat, {"messages": [{"role": "user", "content": "hi"}]}, "messages", "missing_required_parameter", "one image"),
    (Chat, {"messages": [{"role": "user", "content": None}]}, "messages", "invalid_value", "parts must be"),
    (Chat, {"messages": [{"role": "user", "content": ["hi"]}]}, "messages", "invalid_value", "parts must be"),
    (Chat, {"messages": image_message(images=2)}, "messages", "unsupported_parameter", "there are 2"),
    (Chat, {"messages": image_message(url="http://a/b.png")}, "messages", "invalid_value", "never fetched"),
    (Chat, {"messages": image_message(url="data:text/plain;base64,0")}, "messages", "invalid_value", "never fetched"),
    (Chat, {"messages": image_message(url="data:image/png,0")}, "messages", "invalid_value", "never fetched"),
    (
        Chat,
        {"messages": [{"role": "system", "content": "Be nice."}, *image_message()]},
        "messages",
        "unsupported_parameter",
        "no instructions",
    ),
    (
        Chat,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:"}]}]},
        "messages",
        "invalid_value",
        "object with a url",
    ),
    (Chat, {"messages": image_message(), "tools": [{}]}, "tools", "unsupported_parameter", "call no tools"),
    (Chat, {"messages": image_message(), "temperature": 0.5}, "temperature", "invalid_value", "likeliest"),
    (
        Chat,
        {"messages": image_message(), "response_format": {"type": "json_object"}},
        "response_format",
        "invalid_value",
        "plain",
    ),
    (Chat, {"messages": image_message(), "n": 2}, "n", "invalid_value", "one answer"),
]


@pytest.mark.parametrize(("kind", "given", "param", "reason", "sentence"), REFUSED)
def test_what_cannot_be_done_is_refused_by_name(
    kind: type[Parameters], given: dict[str, Any], param: str, reason: str, sentence: str
) -> None:
    with pytest.raises(ParameterError, match=re.escape(sentence)) as caught:
        kind.read(given).native()
    assert (caught.value.param, caught.value.reason) == (param, reason)


def test_a_form_has_texts_only() -> None:
    assert form_fields({"n": 2, "stream": True, "text": "é", "x": 0.5}) == {
        "n": "2",
        "stream": "true",
        "text": "é",
        "x": "0.5",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_no_parameter_is_in_two_places(kind: type[Parameters]) -> None:
    places = [set(kind.model_fields), set(kind.harmless), set(kind.impossible), set(kind.files)]
    assert sum(map(len, places)) == len(set().union(*places))


@pytest.mark.parametrize(
    ("kind", "file", "body"),
    [
        (ImageGeneration, "diffusion/src/aiservice_diffusion/bodies.py", ("_Common", "TextToImage")),
        (ImageEdit, "diffusion/src/aiservice_diffusion/bodies.py", ("_Common", "ImageToImage")),
        (Speech, "speech-synthesis/src/aiservice_speech_synthesis/engine.py", ("TextToSpeech",)),
        (Transcription, "speech-recognition/src/aiservice_speech_recognition/engine.py", ("SpeechToText",)),
        (Chat, "vision/src/aiservice_vision/engine.py", ("ImageToText",)),
    ],
)
def test_the_engines_have_the_fields_that_they_are_sent(
    kind: type[Parameters], file: str, body: tuple[str, ...]
) -> None:
    """The gateway cannot import the engines; their source says what they take."""
    tree = ast.parse((REPOSITORY / "inference-images" / file).read_text())
    bodies = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in body]
    assert len(bodies) == len(body)
    fields = {
        node.target.id
        for each in bodies
        for node in each.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    sent = {name for each, _, native in TRANSLATED if each in {kind, *kind.__subclasses__()} for name in native}
    assert sent
    assert sent <= fields


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_in_the_documentation(kind: type[Parameters]) -> None:
    text = (
        (REPOSITORY / "docs" / "gateway.md").read_text().partition("## OpenAI-compatible API")[2].partition("\n## ")[0]
    )
    assert text
    named = set(re.findall(r"`([a-z_]+)`", text))
    assert {*kind.model_fields, *kind.harmless, *kind.impossible, *kind.files} <= named
