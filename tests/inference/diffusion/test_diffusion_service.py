"""The image's entry point, as a container runs it."""

from __future__ import annotations

import base64
import io
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from support.openapi import check_examples
from support.service_process import Process

VARIABLES = {"AISERVICE_PORTS": "text-to-image=0,image-to-image=0", "AISERVICE_DEFAULT_STEPS": "2"}


def test_it_serves_both_tasks_as_described_and_batches_what_comes_together(tmp_path: Path, sdxl: Path) -> None:
    process = Process("aiservice_diffusion", tmp_path, [], VARIABLES | {"AISERVICE_MODEL_DIR": str(sdxl)})
    try:
        process.wait_for("ready", seconds=180)
        urls = {task: f"http://127.0.0.1:{port}/api/{task}" for task, port in process.ports().items()}
        with httpx.Client(timeout=180) as client:

            def ask(seed: int) -> dict[str, Any]:
                body = {"prompt": "a cup", "style": "realistic", "size": "64x64", "seed": seed}
                answer: dict[str, Any] = client.post(urls["text-to-image"], json=body).json()
                return answer

            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(ask, range(8)))
            assert [answer["images"][0]["seed"] for answer in answers] == list(range(8))
            assert answers[0]["usage"] == {
                "units": 1.0,
                "unit": "image",
                "tokens": answers[0]["usage"]["tokens"],
                "cost": None,
            }
            page = client.get(f"{urls['text-to-image'].rpartition('/api')[0]}/metrics").text
            batches = next(
                line for line in page.splitlines() if line.startswith('aiservice_batch_size_count{task="text')
            )
            assert float(batches.split()[1]) < 8

            made = base64.b64decode(answers[0]["images"][0]["b64"])
            form = {"prompt": "a cup", "format": "webp", "seed": "1", "strength": "0.5"}
            again = client.post(urls["image-to-image"], files={"file": ("cup.png", made)}, data=form).json()
            picture = Image.open(io.BytesIO(base64.b64decode(again["images"][0]["b64"])))
            assert (picture.format, picture.size) == ("WEBP", (64, 64))
            assert (again["usage"]["unit"], again["usage"]["units"]) == ("image", 1.0)

            for body in ({"prompt": "x", "size": "63x64"}, {"prompt": "x" * 100_000}, {"prompt": ""}, {}):
                refused = client.post(urls["text-to-image"], json=body)
                assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
            with httpx.Client(base_url=urls["image-to-image"].rpartition("/api")[0], timeout=180) as other:
                assert len(check_examples(other)) == 8
            svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:9/x"/></svg>'
            refused = client.post(urls["image-to-image"], files={"file": ("x.svg", svg)}, data={"prompt": "x"})
            assert "The upload is no picture" in refused.json()["error"]
        process.child.send_signal(signal.SIGTERM)
        assert process.end() == 0
    finally:
        process.child.kill()
        process.end()


def test_an_empty_folder_ends_it_with_a_sentence(tmp_path: Path) -> None:
    process = Process("aiservice_diffusion", tmp_path, ["--model-dir", str(tmp_path)], VARIABLES)
    assert process.end(120) == 1
    assert "No model in" in process.termination.read_text()
