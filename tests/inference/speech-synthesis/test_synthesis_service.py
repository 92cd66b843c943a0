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

TEXT = "The sea was calm and grey today. And the wind did not blow at all."


def test_a_process_speaks_with_a_recorded_voice(
    xtts: Path,
    tmp_path: Path,
    clip: Callable[..., bytes],
    heard: Callable[..., np.ndarray[tuple[int], np.dtype[np.int16]]],
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
            content = b"".join(stream.iter_bytes())
        whole = client.post(url, json={"text": TEXT, "seed": 7}).json()
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

        assert len(check_examples(client)) == 8, "each as JSON and as a form"

        assert client.post("/sleep").json() == {"status": "asleep"}
        assert client.post("/wake").json() == {"status": "serving"}
    assert not any("calm" in line or "Hello there" in line for line in process.lines), "texts are not logged"
    process.child.send_signal(signal.SIGTERM)
    assert process.end() == 0
