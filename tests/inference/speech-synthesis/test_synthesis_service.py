"""The whole process: a recording in over HTTP, speech out, whole and streamed."""

from __future__ import annotations

import base64
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np

from support.openapi import check_examples
from support.service_process import Process

Heard = Callable[..., np.ndarray[tuple[int], np.dtype[np.int16]]]

TEXT = "The sea was calm and grey today. And the wind did not blow at all."


def test_a_process_speaks_with_a_recorded_voice(
    xtts: Path,
    tmp_path: Path,
    clip: Callable[..., bytes],
    heard: Heard,
) -> None:
    arguments = ["--model-dir", str(xtts), "--ports", "text-to-speech=0", "--threads", "1", "--stream-tokens", "8"]
    process = Process("aiservice_speech_synthesis", tmp_path, arguments, {})
    process.wait_for("ready", 180)
    with httpx.Client(base_url=f"http://127.0.0.1:{process.ports()['text-to-speech']}", timeout=120) as client:
        url = "/api/text-to-speech"
        form = {"text": "Hello there.", "seed": "1", "format": "mp3"}
        answer = client.post(
            url, data=form, files={"file": ("voice.wav", clip())}, headers={"X-AIService-Unit-Price": "0.001"}
        )
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["usage"] == {"units": 12.0, "unit": "character", "tokens": body["usage"]["tokens"], "cost": 0.012}
        assert heard(base64.b64decode(body["audio"]["b64"])).size > 2000
        assert float(answer.headers["x-aiservice-device-seconds"]) > 0

        with client.stream("POST", url, json={"text": TEXT, "seed": 7, "stream": True, "format": "opus"}) as stream:
            assert stream.headers["content-type"] == "audio/ogg; codecs=opus"
            assert stream.headers["x-aiservice-units"] == f"{len(TEXT)}.000"
            streamed_tokens = int(stream.headers["x-aiservice-tokens"])
            content = b"".join(stream.iter_bytes())
        whole = client.post(url, json={"text": TEXT, "seed": 7}).json()
        assert streamed_tokens == whole["usage"]["tokens"] > 0
        assert abs(heard(content).size / 24_000 - whole["audio"]["seconds"]) < 0.15

        # Nothing of these costs the device anything.
        for bad, status in (
            ({"text": ""}, 400),
            ({"text": "x" * 100_000}, 413),
            ({"text": "Hi.", "format": "aac"}, 400),
            ({"text": "Hi.", "speed": 9}, 400),
            ({"text": "Hi.", "voice_clip": "https://example.com/voice.wav"}, 400),
            ({"text": "Hi.", "language": "xx"}, 400),
            ({"text": "Hi.", "pitch": 1}, 400),
        ):
            refused = client.post(url, json=bad)
            assert (refused.status_code, refused.headers["x-aiservice-device-seconds"]) == (status, "0.000000"), (
                refused.text
            )
            assert refused.json()["error"].endswith(".")
        nan = client.post(url, content='{"text": "Hi.", "speed": NaN}', headers={"Content-Type": "application/json"})
        assert nan.status_code == 400

        _check_sounds_by_themselves(client, heard)
        assert len(check_examples(client)) == 10, "each as JSON and as a form"

        assert client.post("/sleep").json() == {"status": "asleep"}
        assert client.post("/wake").json() == {"status": "serving"}
    assert not any("calm" in line or "Hello there" in line for line in process.lines), "texts are not logged"
    process.child.send_signal(signal.SIGTERM)
    assert process.end() == 0


def _check_sounds_by_themselves(client: httpx.Client, heard: Heard) -> None:
    url, body = "/api/text-to-speech", {"text": TEXT, "seed": 7}
    price = {"X-AIService-Unit-Price": "0.001"}
    json = client.post(url, json=body, headers=price).json()
    bare = client.post(url, json=body, headers=price | {"Accept": "audio/*"})
    assert (bare.status_code, bare.headers["content-type"], bare.headers["vary"]) == (200, "audio/wav", "Accept")
    assert bare.content == base64.b64decode(json["audio"]["b64"])
    facts = {name: bare.headers[f"x-aiservice-{name}"] for name in ("format", "language", "voice", "seed")}
    assert facts == {"format": "wav", "language": json["language"], "voice": json["voice"], "seed": "7"}
    numbers = {name: float(bare.headers[f"x-aiservice-{name}"]) for name in ("sample-rate", "audio-seconds")}
    assert numbers == {"sample-rate": json["audio"]["sample_rate"], "audio-seconds": json["audio"]["seconds"]}
    usage = {name: float(bare.headers[f"x-aiservice-{name}"]) for name in ("units", "tokens", "cost")}
    assert usage == {name: json["usage"][name] for name in usage}

    for accept, media_type in (
        ("audio/mpeg", "audio/mpeg"),
        ("audio/ogg", "audio/ogg; codecs=opus"),
        ("audio/pcm", "audio/pcm; rate=24000; channels=1"),
    ):
        for stream in (False, True):
            answer = client.post(url, json=body | {"stream": stream}, headers={"Accept": accept})
            assert answer.headers["content-type"] == media_type
            assert ("x-aiservice-audio-seconds" in answer.headers) != stream
            assert answer.headers["x-aiservice-seed"] == "7"
            if media_type != "audio/pcm; rate=24000; channels=1":
                assert abs(heard(answer.content).size / 24_000 - json["audio"]["seconds"]) < 0.15

    for accept, more, sentence in (
        (
            "audio/mpeg",
            {"format": "wav"},
            "format is wav, which Accept does not take: leave format out, or accept audio",
        ),
        ("audio/mpeg", {"format": "wav", "stream": True}, "format is wav, which Accept does not take"),
        ("application/json", {"stream": True}, "stream asks for the file itself, which Accept does not take"),
        ("audio/aac", {}, "Accept takes nothing that this task answers: accept application/json, or one of audio/wav"),
    ):
        refused = client.post(url, json=body | more, headers={"Accept": accept})
        assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")
        assert refused.json()["error"].startswith(sentence)
        assert refused.headers["x-aiservice-device-seconds"] == "0.000000"
