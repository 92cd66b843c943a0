"""The image's entry point, as a container runs it."""

from __future__ import annotations

import base64
import shutil
import signal
from pathlib import Path

import httpx

from aiservice_vision import answers
from support import models
from support.openapi import check_examples
from support.service_process import Process

VARIABLES = {"AISERVICE_PORTS": "image-to-text=0", "AISERVICE_TASKS": "image-to-text"}


def test_it_serves_real_pictures_over_http(tmp_path: Path, weights: Path) -> None:
    process = Process("aiservice_vision", tmp_path, [], VARIABLES | {"AISERVICE_MODEL_DIR": str(weights)})
    try:
        process.wait_for("ready", seconds=180)
        url = f"http://127.0.0.1:{process.ports()['image-to-text']}/api/image-to-text"
        picture = (weights / "samples" / "text.png").read_bytes()
        by_form = httpx.post(url, files={"file": ("text.png", picture)}, data={"ocr": "true"}, timeout=180)
        by_json = httpx.post(url, json={"image": base64.b64encode(picture).decode()}, timeout=180)
        for answer in (by_form, by_json):
            assert answer.json()["text"] == models.expected("image-to-text")["text"]
            assert answer.json()["usage"]["unit"] == "image"
        with httpx.Client(base_url=url.removesuffix("/api/image-to-text"), timeout=180) as client:
            assert len(check_examples(client)) == 4, "none of captions"
        refused = httpx.post(url, files={"file": ("text.png", picture)}, data={"caption": "true"}, timeout=180)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
        process.child.send_signal(signal.SIGTERM)
        assert process.end() == 0
    finally:
        process.child.kill()
        process.end()


def test_every_example_of_its_description_is_answered_as_described(tmp_path: Path, blip2: Path, weights: Path) -> None:
    shutil.copytree(blip2, tmp_path / "model" / "caption")
    shutil.copytree(weights / "ocr", tmp_path / "model" / "ocr")
    variables = VARIABLES | {"AISERVICE_MODEL_DIR": str(tmp_path / "model"), "AISERVICE_MAX_NEW_TOKENS": "4"}
    process = Process("aiservice_vision", tmp_path, [], variables)
    try:
        process.wait_for("ready", seconds=180)
        url = f"http://127.0.0.1:{process.ports()['image-to-text']}"
        with httpx.Client(base_url=url, timeout=180) as client:
            assert len(check_examples(client)) == 6
            picture = base64.b64decode(answers.examples(captions=True, reads=True)[0].request["image"])
            assert client.post("/api/image-to-text", files={"file": ("x.png", picture)}).json()["text"] == "Invoice"
    finally:
        process.child.kill()
        process.end()


def test_an_empty_folder_ends_it_with_a_sentence(tmp_path: Path) -> None:
    process = Process("aiservice_vision", tmp_path, ["--model-dir", str(tmp_path)], VARIABLES)
    assert process.end(120) == 1
    assert "No model in" in process.termination.read_text()
