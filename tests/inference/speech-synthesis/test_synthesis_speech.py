"""Requests through the real XTTS, VITS, YourTTS and Glow-TTS pipelines, on random weights."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aiservice_runtime import Answer, FatalError, InvalidRequestError, PayloadTooLargeError
from aiservice_runtime.engine import Fault
from aiservice_runtime.errors import AbandonedError, RequestError
from aiservice_speech_synthesis.engine import SynthesisEngine, TextToSpeech
from support.engines import ask
from support.polyglots import with_archive
from support.synthesis import loaded
from weights import tiny_speech

Heard = Callable[..., np.ndarray[tuple[int], np.dtype[np.int16]]]
Clip = Callable[..., bytes]
SENTENCE = "The sea was calm and grey today."
TWO = f"{SENTENCE} And the wind did not blow at all."


def seconds(answer: Answer) -> float:
    told: float = answer.body["audio"]["seconds"]
    return told


def sound(answer: Answer) -> bytes:
    return base64.b64decode(answer.body["audio"]["b64"])


def streamed(engine: SynthesisEngine, **fields: Any) -> tuple[bytes, list[float]]:
    """The streamed file, and when each part of it that is not empty was there, in seconds since the start."""
    [task] = engine.tasks
    prepared = task.prepare(TextToSpeech(stream=True, **fields))
    assert task.stream is not None
    assert prepared.stream is not None
    started, parts, times = time.monotonic(), [], []
    for chunk in task.stream(prepared.pieces[0], lambda: None):
        if part := prepared.stream.encode(chunk):
            parts.append(part)
            times.append(time.monotonic() - started)
    parts.append(prepared.stream.end({}))
    return b"".join(parts), times


def test_xtts_speaks(engine: SynthesisEngine, heard: Heard) -> None:
    answer = ask(engine, text=SENTENCE, language="en", seed=7)
    body = answer.body
    assert (body["audio"]["format"], body["audio"]["sample_rate"], body["language"], body["voice"], body["seed"]) == (
        "wav",
        24_000,
        "en",
        "Ana Florence",
        7,
    )
    assert heard(sound(answer)).size / 24_000 == pytest.approx(body["audio"]["seconds"], abs=0.001)
    assert 0.1 < body["audio"]["seconds"] < 3
    assert answer.units == len(SENTENCE)
    assert answer.tokens > len(SENTENCE) * 0.9
    # The same seed gives the same speech; another voice, seed or language does not.
    assert ask(engine, text=SENTENCE, seed=7).body["audio"]["b64"] == body["audio"]["b64"]
    others: list[dict[str, Any]] = [{"seed": 8}, {"seed": 7, "voice": "Damien Black"}, {"seed": 7, "language": "de"}]
    sounds = {sound(ask(engine, text=SENTENCE, **other)) for other in others}
    assert len(sounds | {sound(answer)}) == 4


def test_xtts_streams_while_it_computes(engine: SynthesisEngine, heard: Heard) -> None:
    content, times = streamed(engine, text=TWO, seed=7, format="flac")
    assert len(times) > 3
    assert times[0] < 0.4 * times[-1]
    whole = ask(engine, text=TWO, seed=7).body["audio"]["seconds"]
    assert heard(content).size / 24_000 == pytest.approx(whole, abs=0.15), "the same tokens, faded into each other"


def test_a_cloned_voice_is_listened_to_once(
    engine: SynthesisEngine, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    listened: list[int] = []
    model = engine._loaded.modules[0]
    original = model.get_speaker_embedding

    def noted(*arguments: Any) -> Any:
        listened.append(1)
        return original(*arguments)

    monkeypatch.setattr(model, "get_speaker_embedding", noted)
    clips = [clip(hertz=hertz) for hertz in (120, 180, 240)]
    answers = [ask(engine, text="Hi there.", seed=1, voice_clip=each) for each in (clips[0], clips[0], clips[1])]
    assert len(listened) == 2
    assert [answer.body["audio"]["b64"] == answers[0].body["audio"]["b64"] for answer in answers] == [True, True, False]
    assert answers[0].body["voice"] is None
    for each in (clips[2], clips[0]):  # two are kept
        ask(engine, text="Hi there.", seed=1, voice_clip=each)
    assert len(listened) == 4


def test_a_request_of_several_sentences_is_computed_in_pieces(small: SynthesisEngine) -> None:
    [task] = small.tasks
    prepared = task.prepare(TextToSpeech(text=TWO, seed=3))
    assert len(prepared.pieces) == 2
    assert prepared.together is None
    # Whatever is computed between, and in whatever order, the answer is the same.
    ask(small, text="Something else in between.")
    late, early = (task.run([piece], lambda: None)[0] for piece in reversed(prepared.pieces))
    whole = prepared.finish([early, late])
    assert whole.body["audio"]["b64"] == ask(small, text=TWO, seed=3).body["audio"]["b64"]
    rate = whole.body["audio"]["sample_rate"]
    assert whole.body["audio"]["seconds"] == pytest.approx((early.size + late.size) / rate + 0.25, abs=0.002)


@pytest.mark.parametrize("kind", ["wav", "mp3", "opus", "flac", "pcm"])
def test_streamed_and_whole_last_equally_long(small: SynthesisEngine, heard: Heard, kind: str) -> None:
    options = ["-f", "s16le", "-ar", "22050", "-ac", "1"] if kind == "pcm" else []
    answer = ask(small, text=TWO, seed=3, format=kind)
    content, times = streamed(small, text=TWO, seed=3, format=kind)
    lengths = [heard(each, *options).size / 24_000 for each in (sound(answer), content)]
    assert lengths == pytest.approx([answer.body["audio"]["seconds"]] * 2, abs=0.2 if kind == "mp3" else 0.03)
    assert times[0] < times[-1]
    if kind in {"wav", "pcm"}:
        assert content[-1000:] == sound(answer)[-1000:]


def test_speed(small: SynthesisEngine) -> None:
    slow, plain, fast = (seconds(ask(small, text=SENTENCE, seed=3, speed=speed)) for speed in (0.5, 1, 2))
    assert slow > plain > fast
    assert ask(small, text=SENTENCE, seed=3).body["audio"]["seconds"] == plain


def test_cancelling_between_sentences_and_tokens(small: SynthesisEngine, engine: SynthesisEngine) -> None:
    for serving, text, last in ((small, TWO, 2), (engine, SENTENCE, 5)):
        [task] = serving.tasks
        calls = 0

        def check(last: int = last) -> None:
            nonlocal calls
            calls += 1
            if calls == last:
                raise AbandonedError

        with pytest.raises(AbandonedError):
            task.run(task.prepare(TextToSpeech(text=text)).pieces, check)
        assert calls == last
        assert ask(serving, text="Hello.").body["audio"]["seconds"] > 0


def test_the_generators_of_the_process_are_left_alone(small: SynthesisEngine) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ask(small, text=SENTENCE, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_your_tts_has_languages_voices_and_clones(tmp_path: Path, clip: Clip) -> None:
    tiny_speech.yourtts(tmp_path)
    serving = loaded(tmp_path)
    asked: list[dict[str, Any]] = [{}, {"language": "fr"}, {"voice": "male"}, {"voice_clip": clip()}]
    answers = [ask(serving, text=SENTENCE, seed=1, **each) for each in asked]
    assert [answer.body["language"] for answer in answers] == ["en", "fr-fr", "en", "en"]
    assert [answer.body["voice"] for answer in answers] == ["female", "female", "male", None]
    assert len({answer.body["audio"]["b64"] for answer in answers}) == 4


def test_vits_with_phonemes_and_speakers(tmp_path: Path) -> None:
    tiny_speech.vits(tmp_path, speakers=("p225", "p226"), espeak=True)
    serving = loaded(tmp_path, default_voice="p226")
    answer = ask(serving, text=SENTENCE, seed=1)
    assert answer.body["voice"] == "p226"
    assert ask(serving, text=SENTENCE, seed=1, voice="p225").body["audio"]["b64"] != answer.body["audio"]["b64"]
    with pytest.raises(InvalidRequestError, match="cannot clone"):
        ask(serving, text=SENTENCE, voice_clip=b"RIFF")
    with pytest.raises(InvalidRequestError, match="it has p225, p226"):
        ask(serving, text=SENTENCE, voice="p227")


def test_glow_tts_with_a_vocoder(tmp_path: Path, heard: Heard) -> None:
    tiny_speech.glow_tts(tmp_path)
    answer = ask(loaded(tmp_path), text=SENTENCE, seed=1)
    assert heard(sound(answer)).size / 24_000 == pytest.approx(answer.body["audio"]["seconds"], abs=0.001)
    assert answer.body["audio"]["seconds"] > 0.1


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"text": "   "}, InvalidRequestError, "nothing in the text"),
        ({"text": "?! ... 🎉"}, InvalidRequestError, "nothing in the text"),
        ({"text": "x" * 5001}, PayloadTooLargeError, "longer than 5000 characters"),
        ({"language": "klingon"}, InvalidRequestError, "it knows en, de, fr, zh-cn"),
        ({"language": "ja"}, InvalidRequestError, "does not speak that language"),
        ({"voice": "Nobody"}, InvalidRequestError, "it has Ana Florence, Damien Black"),
        ({"voice": "Ana Florence", "voice_clip": b"x"}, InvalidRequestError, "not both"),
        ({"voice_clip": b""}, InvalidRequestError, "audio is empty"),
        ({"voice_clip": b"this is no sound"}, InvalidRequestError, "no known audio format"),
        ({"voice_clip": "an archive too"}, InvalidRequestError, "can be opened as a ZIP archive too"),
        ({"voice_clip": "too short"}, InvalidRequestError, "too short"),
        ({"voice_clip": "silent"}, InvalidRequestError, "silent"),
        ({"voice_clip": "long"}, PayloadTooLargeError, "longer than 10 seconds"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_spoken_is_refused_before_the_device(
    engine: SynthesisEngine, clip: Clip, fields: dict[str, Any], error: type[RequestError], sentence: str
) -> None:
    clips = {"too short": clip(0.4), "silent": clip(2, loudness=0), "long": clip(11)}
    clips["an archive too"] = with_archive(clip())
    given = {"text": SENTENCE, **fields}
    if isinstance(given.get("voice_clip"), str):
        given["voice_clip"] = clips[given["voice_clip"]]
    [task] = engine.tasks
    with pytest.raises(error, match=sentence):
        task.prepare(TextToSpeech.model_construct(**{**TextToSpeech(text="x").model_dump(), **given}))


def test_out_of_memory_is_told_apart(small: SynthesisEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(small._loaded.modules[0], "inference", full)
    with pytest.raises(torch.OutOfMemoryError) as raised:
        ask(small, text=SENTENCE)
    assert small.fault(raised.value) is Fault.OUT_OF_MEMORY


def test_sleep_and_wake(small: SynthesisEngine) -> None:
    before = ask(small, text=SENTENCE, seed=1).body["audio"]["b64"]
    small.sleep()
    small.wake()
    assert ask(small, text=SENTENCE, seed=1).body["audio"]["b64"] == before
    assert len(list(small.modules())) == 1


def test_a_default_that_the_model_does_not_have_is_told(vits: Path) -> None:
    with pytest.raises(FatalError, match="default-voice is 'Bob'"):
        loaded(vits, default_voice="Bob")
