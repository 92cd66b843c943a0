"""OpenAI's own client for Node, unchanged, against the gateway: one run of it does everything, and is looked at."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.contract import SOUND, SRT, TEXT, Contract, picture, running_contract, services
from support.databases import free_port
from support.gateway import environment, eventually, gateway_here, token
from support.npm import installed, own_node

PROGRAM = Path(__file__).parents[2] / "data" / "openai-node"
WAV = b"RIFF" * 50_000


@pytest.fixture
async def engine() -> AsyncIterator[Contract]:
    async with running_contract() as engine:
        yield engine


async def run(folder: Path, url: str) -> dict[str, Any]:
    """Runs the program; returns what each of its scenes got."""
    packages = await asyncio.to_thread(installed, PROGRAM)
    shutil.copy(PROGRAM / "client.mjs", folder)
    shutil.copy(PROGRAM / "package.json", folder)
    (folder / "node_modules").symlink_to(packages / "node_modules")
    (folder / "speech.wav").write_bytes(WAV)
    process = await asyncio.create_subprocess_exec(
        own_node(packages), "client.mjs", url, "speech.wav", *map(token, ("node", "suspended", "counted")),
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, log = await process.communicate()
    assert process.returncode == 0, log.decode()[-3000:]
    results: dict[str, Any] = json.loads(out)
    return results


async def test_every_route(engine: Contract, tmp_path: Path) -> None:
    away: dict[str, Any] = {"name": "away", "tasks": ["text-to-image"], "url": f"http://127.0.0.1:{free_port()}"}
    tenants = [
        {"metadata": {"name": "suspended"}, "spec": {"suspend": True}},
        {
            "metadata": {"name": "counted"},
            "spec": {"limits": [{"measure": "requests", "maximum": 1, "window": "1h"}]},
        },
    ]
    document = {"services": [*services(engine.url), away], "tenants": tenants}
    (tmp_path / "services.yaml").write_text(yaml.safe_dump(document))
    async with gateway_here(environment(tmp_path)) as gateway:
        got = await run(tmp_path, str(gateway._base_url).rstrip("/"))
        await eventually(lambda: engine.sent[-1].fields.get("text") == "Hello again")

    assert set(got["models"]["ids"]) >= {"sdxl", "gpt-image-1", "whisper", "tts-1", "blip2"}
    assert got["models"]["one"] == "whisper-1"
    assert [base64.b64decode(image) for image in got["images"]["images"]] == [picture(0, 300), picture(1, 300)]
    assert got["edit"] == {"images": 1}
    assert base64.b64decode(got["speech"]["sound"]) == SOUND
    assert got["speech"]["type"] == "audio/wav"
    assert got["fileFirst"]["text"] == TEXT
    assert [word["word"] for word in got["fileBetween"]["words"]] == ["The", "It"]
    assert len(got["fileBetween"]["segments"]) == 2
    assert got["subtitles"] == SRT
    assert "".join(event.get("delta", "") for event in got["transcriptionEvents"]) == TEXT
    assert got["transcriptionEvents"][-1]["text"] == TEXT
    assert got["translation"]["text"] == TEXT
    assert got["chat"] == {"content": "a sign beside a road", "tokens": 9}
    assert got["chatEvents"]["content"] == "a sign beside a road"
    assert got["abort"]["first"] > 0

    errors = {name: result for name, result in got.items() if "error" in result}
    assert {name: (each["error"], each["status"], each["code"], each["param"]) for name, each in errors.items()} == {
        "edits": ("BadRequestError", 400, "invalid_value", "image"),
        "badToken": ("AuthenticationError", 401, "invalid_api_key", None),
        "noSuchModel": ("NotFoundError", 404, "model_not_found", None),
        "badParameter": ("BadRequestError", 400, "invalid_value", "response_format"),
        "notAllowed": ("PermissionDeniedError", 403, "tenant_suspended", None),
        "overLimit": ("RateLimitError", 429, "rate_limit_exceeded", None),
        "keyReused": ("UnprocessableEntityError", 422, "idempotency_key_reused", None),
        "serviceAway": ("InternalServerError", 503, "unavailable", None),
    }
    assert all(each["requestID"] for each in errors.values())

    files = {sent.task: sent.files for sent in engine.sent if sent.files}
    assert files["image-to-image"] == {"file": b"image", "mask": b"mask"}
    assert files["speech-to-text"] == {"file": WAV}
