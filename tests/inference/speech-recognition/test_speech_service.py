"""The image's entry point, as a container runs it."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from support import models
from support.openapi import check_examples, described, validate
from support.service_process import Process

VARIABLES = {"AISERVICE_PORTS": "speech-to-text=0", "AISERVICE_TASKS": "speech-to-text"}


def test_it_serves_real_speech_over_http(tmp_path: Path, weights: Path) -> None:
    variables = VARIABLES | {"AISERVICE_MODEL_DIR": str(weights / "whisper")}
    process = Process("aiservice_speech_recognition", tmp_path, ["--max-body-mib=1"], variables)
    try:
        process.wait_for("ready", seconds=180)
        url = f"http://127.0.0.1:{process.ports()['speech-to-text']}/api/speech-to-text"
        speech = (weights / "samples" / "speech.wav").read_bytes()
        answer = httpx.post(url, files={"file": ("speech.wav", speech)}, data={"language": "en"}, timeout=180)
        assert answer.json()["text"] == models.expected("speech-to-text")["text"]
        assert answer.headers["x-aiservice-unit"] == "audio-second"
        assert answer.json()["usage"]["units"] == answer.json()["duration"]
        refused = httpx.post(url, files={"file": ("speech.wav", b"no sound")}, timeout=180)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
        assert httpx.post(url, files={"file": ("speech.wav", bytes(2 * 1024**2))}, timeout=180).status_code == 413
        process.child.send_signal(signal.SIGTERM)
        assert process.end() == 0
    finally:
        process.child.kill()
        process.end()


@pytest.mark.parametrize(("backend", "examples"), [("faster", 6), ("openai", 5)])
def test_every_example_of_its_description_is_answered_as_described(
    tmp_path: Path, weights: Path, backend: str, examples: int
) -> None:
    folder = models.faster_whisper_weights() if backend == "faster" else weights / "whisper"
    process = Process("aiservice_speech_recognition", tmp_path, ["--model-dir", str(folder)], VARIABLES)
    try:
        process.wait_for("ready", seconds=180)
        url = f"http://127.0.0.1:{process.ports()['speech-to-text']}"
        with httpx.Client(base_url=url, timeout=180) as client:
            assert len(check_examples(client)) == 2 * examples
            # What is really said is as described too.
            speech = (weights / "samples" / "speech.wav").read_bytes()
            form = {"timestamps": "word", "format": "verbose_json"}
            answer = client.post("/api/speech-to-text", files={"file": ("a.wav", speech)}, data=form)
            document = described(client)
            validate(document, document["components"]["schemas"]["Transcription"], answer.json())
            assert len(answer.json()["segments"][0]["words"]) > 3
    finally:
        process.child.kill()
        process.end()


def test_an_empty_folder_ends_it_with_a_sentence(tmp_path: Path) -> None:
    process = Process("aiservice_speech_recognition", tmp_path, ["--model-dir", str(tmp_path)], VARIABLES)
    assert process.end(120) == 1
    assert "No Whisper model in" in process.termination.read_text()
