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
                assert len(check_examples(other)) == 12
            _check_pictures_by_themselves(client, urls)
            svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:9/x"/></svg>'
            refused = client.post(urls["image-to-image"], files={"file": ("x.svg", svg)}, data={"prompt": "x"})
            assert "The upload is no picture" in refused.json()["error"]
        process.child.send_signal(signal.SIGTERM)
        assert process.end() == 0
    finally:
        process.child.kill()
        process.end()


def _check_pictures_by_themselves(client: httpx.Client, urls: dict[str, str]) -> None:
    body = {"prompt": "a cup", "style": "realistic", "size": "64x72", "seed": 3}
    url, price = urls["text-to-image"], {"X-AIService-Unit-Price": "0.003"}
    json = client.post(url, json=body, headers=price | {"Accept": "application/json"}).json()
    bare = client.post(url, json=body, headers=price | {"Accept": "image/png, */*;q=0.1"})
    assert (bare.status_code, bare.headers["content-type"], bare.headers["vary"]) == (200, "image/png", "Accept")
    assert bare.content == base64.b64decode(json["images"][0]["b64"])
    told = {name: bare.headers[f"x-aiservice-{name}"] for name in ("seed", "steps", "guidance", "size", "format")}
    assert told == {
        "seed": "3",
        "steps": str(json["steps"]),
        "guidance": str(json["guidance"]),
        "size": "64x72",
        "format": "png",
    }
    assert float(bare.headers["x-aiservice-megapixel-steps"]) == json["megapixel_steps"]
    usage = {name: float(bare.headers[f"x-aiservice-{name}"]) for name in ("units", "tokens", "cost")}
    assert usage == {name: json["usage"][name] for name in usage}

    for accept, kind in (("image/jpeg", "JPEG"), ("image/*", "PNG"), ("image/webp;q=0.9, image/jpeg;q=0.8", "WEBP")):
        answer = client.post(url, json=body, headers={"Accept": accept})
        picture = Image.open(io.BytesIO(answer.content))
        assert (picture.format, picture.size) == (kind, (64, 72))
    form = {"prompt": "a cup", "seed": "1", "strength": "0.5"}
    other = client.post(
        urls["image-to-image"],
        files={"file": ("cup.png", bare.content)},
        data=form,
        headers={"Accept": "image/webp, application/json;q=0.5"},
    )
    assert Image.open(io.BytesIO(other.content)).format == "WEBP"
    assert other.headers["x-aiservice-size"] == "64x72"

    for accept, more, sentence in (
        ("image/*", {"n": 2}, "n is 2, and an image by itself is one: set n to 1, or accept application/json."),
        ("image/jpeg", {"format": "png"}, "format is png, which Accept does not take"),
        ("audio/wav", {}, "Accept takes nothing that this task answers"),
    ):
        refused = client.post(url, json=body | more, headers={"Accept": accept})
        assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")
        assert refused.json()["error"].startswith(sentence)
        assert refused.headers["x-aiservice-device-seconds"] == "0.000000"
    several = client.post(url, json=body | {"n": 2}, headers={"Accept": "image/*, application/json;q=0.5"})
    assert len(several.json()["images"]) == 2


def test_an_empty_folder_ends_it_with_a_sentence(tmp_path: Path) -> None:
    process = Process("aiservice_diffusion", tmp_path, ["--model-dir", str(tmp_path)], VARIABLES)
    assert process.end(120) == 1
    assert "No model in" in process.termination.read_text()
