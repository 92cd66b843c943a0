"""What the demo promises a newcomer, asserted on the running demo."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from typing import Any

from support.demo import DEMO, RunningDemo

TASKS = ("text-to-image", "image-to-image", "text-to-speech", "speech-to-text", "image-to-text")
SENTENCE = "The quick brown fox jumps over the lazy dog. Please deliver three boxes to the warehouse on Monday morning."


def png(width: int, height: int) -> str:
    """A blank picture, base64."""
    rows = b"".join(b"\x00" + b"\xff" * 3 * width for _ in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    picture = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(picture).decode()


def answer(demo: RunningDemo, service: str, task: str) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((demo.output / f"{service}.{task}.json").read_text())
    return kept


def test_the_spoken_sentence_comes_back_word_for_word(demo: RunningDemo) -> None:
    body = answer(demo, "speech-to-text", "speech-to-text")
    assert re.findall(r"\w+", body["text"].lower()) == re.findall(r"\w+", SENTENCE.lower())
    assert body["usage"]["unit"] == "audio-second"
    assert body["duration"] > 4


def test_the_picture_of_text_comes_back_as_its_text(demo: RunningDemo) -> None:
    body = answer(demo, "image-to-text", "image-to-text")
    lines = [line["text"] for line in body["lines"]]
    assert body["text"].split("\n") == lines
    assert lines == ["Invoice 2026-114", "Three boxes of paper", "Total 48.50 EUR"]
    assert all(line["confidence"] > 0.8 for line in body["lines"])


def test_one_pod_draws_from_words_and_from_a_picture(demo: RunningDemo) -> None:
    for task in ("text-to-image", "image-to-image"):
        body = answer(demo, "stable-diffusion", task)
        [entry] = body["images"]
        assert (entry["seed"], entry["width"], entry["height"], body["steps"]) == (7, 64, 64, 4)
        assert (demo.output / f"{task}.png").read_bytes() == base64.b64decode(entry["b64"])
    pods = demo.kubectl(
        "-n",
        DEMO,
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/name=aiservice,app.kubernetes.io/instance=stable-diffusion",
        "-o",
        "name",
    )
    assert len(pods.split()) == 1


def test_a_text_is_spoken(demo: RunningDemo) -> None:
    body = answer(demo, "xtts", "text-to-speech")
    assert (body["seed"], body["audio"]["format"], body["usage"]["unit"]) == (7, "wav", "character")
    assert (demo.output / "text-to-speech.wav").read_bytes() == base64.b64decode(body["audio"]["b64"])


def test_a_second_service_of_a_task_is_asked_by_its_name(demo: RunningDemo) -> None:
    body = answer(demo, "blip-2", "image-to-text")
    assert body["lines"] == []
    assert isinstance(body["caption"], str)


def test_the_table_has_a_line_for_each_task_and_tells_real_weights_from_random_ones(demo: RunningDemo) -> None:
    table = (demo.output / "table.txt").read_text()
    assert table in demo.transcript
    heading, *lines = table.rstrip("\n").split("\n")
    weights = heading.index("WEIGHTS")
    kinds = {tuple(line[:weights].split()[:2]): line[weights:].split("  ")[0] for line in lines}
    assert kinds == {
        ("speech-to-text", "speech-to-text"): "real",
        ("image-to-text", "image-to-text"): "real",
        ("image-to-text", "blip-2"): "tiny, random",
        ("text-to-speech", "xtts"): "tiny, random",
        ("text-to-image", "stable-diffusion"): "tiny, random",
        ("image-to-image", "stable-diffusion"): "tiny, random",
    }
    assert SENTENCE in table
    assert "Invoice 2026-114 / Three boxes of paper / Total 48.50 EUR" in table
    assert "Their answers mean nothing." in demo.transcript


def test_usage_counts_what_the_demo_sent(demo: RunningDemo) -> None:
    usage = demo.call("/api/usage", demo.token("demo")).body
    assert usage["services"]["speech-to-text"]["count"] == 2
    assert usage["services"]["image-to-text"]["count"] == 4, "by two services"
    assert usage["services"]["text-to-speech"]["count"] == 2
    assert usage["services"]["text-to-image"]["count"] == usage["services"]["image-to-image"]["count"] == 2


def test_health_has_the_documented_shape(demo: RunningDemo) -> None:
    health = demo.call("/health")
    assert health.status == 200
    assert set(health.body) == {"status", "services", "timestamp"}
    assert health.body["status"] == "healthy"
    for task in TASKS:
        service = health.body["services"][task]
        assert service["status"] == "healthy"
        assert 0 < service["response_time"] < 5
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", health.body["timestamp"])


def test_without_a_token_nothing_is_served(demo: RunningDemo) -> None:
    refused = demo.call("/api/image-to-text", body={"image": png(16, 16)})
    assert refused.status == 401
    assert refused.body["error"]


def test_a_service_that_is_not_there_is_not_found(demo: RunningDemo) -> None:
    missing = demo.call("/api/text-to-image?service=flux", demo.token("demo"), {"prompt": "a sunset"})
    assert missing.status == 404
    assert "stable-diffusion" in missing.body["error"], "the names that there are"


def test_the_hundred_and_first_request_of_an_hour_is_refused(demo: RunningDemo) -> None:
    token = demo.token("limited")
    statuses = []
    for _ in range(101):
        last = demo.call("/api/image-to-text", token, {"image": png(32, 32)})
        statuses.append(last.status)
    assert statuses == [200] * 100 + [429]
    assert last.body["error"] == "Rate limit exceeded"
    assert 0 < last.body["retry_after"] <= 3600
    assert demo.call("/api/image-to-text", demo.token("other"), {"image": png(32, 32)}).status == 200
