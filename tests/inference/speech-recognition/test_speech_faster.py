"""faster-whisper on real weights, and both backends side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aiservice_runtime import FatalError, InvalidRequestError
from aiservice_runtime.errors import AbandonedError
from aiservice_speech_recognition.engine import SpeechEngine
from aiservice_speech_recognition.faster_model import FasterTranscriber
from aiservice_speech_recognition.settings import SpeechSettings
from support import models
from support.engines import ask, load


@pytest.fixture(scope="module", params=["fp32", "int8"])
def faster(request: pytest.FixtureRequest) -> Iterator[SpeechEngine]:
    settings = SpeechSettings.model_validate({"model_dir": models.faster_whisper_weights(), "precision": request.param})
    engine = SpeechEngine(settings)
    load(engine)
    engine.warm_up()
    yield engine
    engine.release()


def test_a_spoken_sentence_comes_back(faster: SpeechEngine, speech: bytes) -> None:
    answer = ask(faster, audio=speech)
    assert answer.body["text"] == models.expected("speech-to-text")["text"]
    assert answer.body["language"] == "en"
    assert answer.units == answer.body["duration"]


def test_both_backends_say_the_same(faster: SpeechEngine, engine: SpeechEngine, speech: bytes) -> None:
    one, other = (ask(each, audio=speech, timestamps="word", format="verbose_json").body for each in (faster, engine))
    assert one["text"] == other["text"]
    assert set(one["segments"][0]) == set(other["segments"][0])
    words = [[word for segment in body["segments"] for word in segment["words"]] for body in (one, other)]
    assert [word["word"] for word in words[0]] == [word["word"] for word in words[1]]
    assert all(abs(a["start"] - b["start"]) < 0.5 for a, b in zip(*words, strict=True))


class _Moved:
    """Stands for CTranslate2's model and for torch, and notes what is asked of them."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.cuda = self

    def unload_model(self, *, to_cpu: bool) -> None:
        self.calls.append(("unload", to_cpu))

    def load_model(self) -> None:
        self.calls.append("load")

    def empty_cache(self) -> None:
        self.calls.append("cache emptied")


@pytest.mark.parametrize(("device", "calls"), [("cuda", [("unload", True), "cache emptied", "load"]), ("cpu", [])])
def test_sleep_and_wake_move_the_weights_of_a_gpu(device: str, calls: list[object], tmp_path: Path) -> None:
    engine = SpeechEngine(SpeechSettings.model_validate({"model_dir": tmp_path, "backend": "faster", "device": device}))
    transcriber, stand_in = FasterTranscriber.__new__(FasterTranscriber), _Moved()
    transcriber._model = SimpleNamespace(model=stand_in)
    engine._transcriber, engine._torch = transcriber, stand_in
    engine.sleep()
    engine.wake()
    assert stand_in.calls == calls


def streamed(engine: SpeechEngine, **fields: Any) -> list[bytes]:
    """The events of a streamed answer, as the runtime would send them."""
    [task] = engine.tasks
    prepared = task.prepare(task.body(**fields))
    assert task.stream is not None
    assert prepared.stream is not None
    events = [prepared.stream.encode(chunk) for chunk in task.stream(prepared.pieces[0], lambda: None)]
    return [event for event in [*events, prepared.stream.end({"units": prepared.stream.units})] if event]


def test_segments_are_streamed_as_events(faster: SpeechEngine, speech: bytes) -> None:
    events = [event.decode() for event in streamed(faster, audio=speech, stream=True)]
    assert all(re.fullmatch(r"data: \{.*\}\n\n", event) for event in events)
    assert [event.partition('"type": "')[2].partition('"')[0] for event in events][-2:] == ["segment", "done"]
    assert models.expected("speech-to-text")["text"] in events[-1]
    assert '"usage": {"units": 6.' in events[-1]


def test_a_client_that_leaves_ends_it_between_two_segments(faster: SpeechEngine, speech: bytes) -> None:
    [task] = faster.tasks
    prepared = task.prepare(task.body(audio=speech))
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise AbandonedError

    with pytest.raises(AbandonedError):
        task.run(prepared.pieces, check)


def test_openai_whisper_stops_between_two_tokens(engine: SpeechEngine, speech: bytes) -> None:
    [task] = engine.tasks
    prepared = task.prepare(task.body(audio=speech))
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise AbandonedError

    with pytest.raises(AbandonedError):
        task.run(prepared.pieces, check)
    assert calls == 5
    assert ask(engine, audio=speech).body["text"] == models.expected("speech-to-text")["text"]


@pytest.mark.parametrize(
    ("kind", "media_type", "form"),
    [
        ("text", "text/plain", r"The quick .*\n"),
        ("srt", "application/x-subrip", r"1\n00:00:00,\d{3} --> 00:00:0\d,\d{3}\nThe quick .*\n(\n2\n.*)?"),
        ("vtt", "text/vtt", r"WEBVTT\n\n00:00:00\.\d{3} --> 00:00:0\d\.\d{3}\nThe quick .*"),
    ],
)
def test_formats(faster: SpeechEngine, speech: bytes, kind: str, media_type: str, form: str) -> None:
    answer = ask(faster, audio=speech, format=kind)
    assert answer.raw is not None
    assert answer.raw.media_type.startswith(media_type)
    assert re.fullmatch(form, answer.raw.content.decode(), re.DOTALL)
    assert answer.units > 6


def test_what_cannot_be_streamed_is_refused(faster: SpeechEngine, engine: SpeechEngine, speech: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="json and verbose_json only"):
        ask(faster, audio=speech, stream=True, format="srt")
    with pytest.raises(InvalidRequestError, match="One in faster-whisper's layout can"):
        ask(engine, audio=speech, stream=True)


def test_an_english_model_takes_english_only(faster: SpeechEngine, speech: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="English only"):
        ask(faster, audio=speech, language="de")
    with pytest.raises(InvalidRequestError, match="cannot translate"):
        ask(faster, audio=speech, translate=True)


def test_damaged_weights_are_told(tmp_path: Path) -> None:
    for path in models.faster_whisper_weights().iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FatalError, match=r"faster-whisper model in .* cannot be loaded"):
        load(SpeechEngine(SpeechSettings(model_dir=tmp_path)))


def test_a_backend_can_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match=r"faster-whisper model in .* cannot be loaded"):
        load(SpeechEngine(SpeechSettings(model_dir=tmp_path, backend="faster")))
    with pytest.raises(FatalError, match="set precision to auto or fp32"):
        SpeechEngine(SpeechSettings(model_dir=models.faster_whisper_weights(), backend="openai", precision="int8"))
