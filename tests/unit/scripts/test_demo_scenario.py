from __future__ import annotations

import base64
import io
import json
import struct
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from demo import scenario
from demo.steps import Console, Runner, StepError, together
from demo.tiny_services import SERVER, TinyService, manifest


@contextmanager
def gateway(status: int, body: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server on loopback that answers every POST alike, and the requests it got."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"path": self.path, "authorization": self.headers["Authorization"], "body": payload})
            answer = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.send_header("X-RateLimit-Remaining", "99")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            """Keeps the test's output quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def case() -> scenario.Case:
    return scenario.Case(
        "whisper",
        "speech-to-text",
        scenario.REAL,
        {"audio": "UklGRg=="},
        lambda body: scenario.read_words(body, "Hello, big World."),
    )


def test_a_case_sends_its_request_to_its_service_and_keeps_the_answer(case: scenario.Case, tmp_path: Path) -> None:
    with gateway(200, {"text": "hello big world"}) as (url, seen):
        answer, result = scenario.run_case(url, "TOKEN", case, tmp_path)
    path = "/api/speech-to-text?service=whisper"
    assert seen == [{"path": path, "authorization": "Bearer TOKEN", "body": {"audio": "UklGRg=="}}]
    assert answer.headers["x-ratelimit-remaining"] == "99"
    assert result.line == "hello big world"
    assert json.loads((tmp_path / "whisper.speech-to-text.json").read_text()) == {"text": "hello big world"}


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, {"text": "hello bad world"}, "returned other words"),
        (200, {}, "returned other words"),
        (503, {"error": "not ready"}, "answered 503"),
    ],
)
def test_another_answer_fails_the_demo(
    status: int, body: dict[str, Any], said: str, case: scenario.Case, tmp_path: Path
) -> None:
    with gateway(status, body) as (url, _), pytest.raises(StepError, match=said):
        scenario.run_case(url, "TOKEN", case, tmp_path)


def test_a_picture_is_kept_and_must_have_the_size_that_was_asked_for() -> None:
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 64, 64)
    result = scenario.read_picture({"images": [{"b64": base64.b64encode(header).decode()}]}, "a.png")
    assert (result.file, result.content) == ("a.png", header)
    other = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 64, 32)
    for image in (base64.b64encode(other).decode(), "", None):
        with pytest.raises(ValueError, match="no PNG of 64x64"):
            scenario.read_picture({"images": [{"b64": image}]}, "a.png")


def test_a_sound_must_last() -> None:
    for seconds in (0, 1):
        file = io.BytesIO()
        with wave.open(file, "wb") as sound:
            sound.setparams((1, 2, 24_000, 0, "NONE", ""))
            sound.writeframes(bytes(48_000 * seconds))
        body = {"audio": {"b64": base64.b64encode(file.getvalue()).decode()}}
        if seconds:
            assert scenario.read_sound(body, "a.wav").line == "1.0 s WAV in a.wav"
        else:
            with pytest.raises(ValueError, match="without sound"):
                scenario.read_sound(body, "a.wav")
    with pytest.raises(ValueError, match="no WAV"):
        scenario.read_sound({"audio": None}, "a.wav")


def test_a_caption_may_say_anything_but_must_be_there() -> None:
    assert scenario.read_caption({"caption": "a\nb"}).line == "a caption of 3 characters"
    with pytest.raises(ValueError, match="no caption"):
        scenario.read_caption({"caption": None})


def test_a_tiny_service_fetches_the_files_of_its_folder_by_their_digests() -> None:
    service = TinyService("stable-diffusion", "sdxl", "diffusion", ("text-to-image",))
    sums = {"tiny/sdxl/unet/config.json": "aa", "tiny/sdxl/model_index.json": "bb", "tiny/other/x": "cc", "ocr/y": "dd"}
    spec = manifest(service, sums)["spec"]
    assert spec["model"]["http"]["files"] == [
        {"url": f"{SERVER}/tiny/sdxl/model_index.json", "path": "model_index.json", "sha256": "bb"},
        {"url": f"{SERVER}/tiny/sdxl/unet/config.json", "path": "unet/config.json", "sha256": "aa"},
    ]
    with pytest.raises(ValueError, match="tiny/sdxl/"):
        manifest(service, {"ocr/y": "dd"})


def test_ready_after_adds_up_the_parts_of_the_start() -> None:
    timings = {"cacheSeconds": 10, "scheduleSeconds": 0, "loadSeconds": 19.5}
    assert scenario.ready_after({"status": {"timings": timings}}) == 29.5


def test_an_answer_without_limits_fails_the_demo() -> None:
    with pytest.raises(StepError, match="x-ratelimit-limit"):
        scenario.limits(scenario.Answer(200, {}, {}, 0.1))


def test_table_columns_align() -> None:
    rows = [
        scenario.Row("text-to-image", "a", "m" * 60, "real", "5 s", "0.1 s, then 0.1 s", "one / two"),
        scenario.Row("task", "long-name", "m", "tiny, random", "15 s", "1.0 s, then 0.9 s", "three"),
    ]
    heading, first, second = scenario.table(rows).split("\n")
    assert heading.index("RESULT") == first.index("one / two") == second.index("three")
    assert "…" in first


def test_shorten_keeps_both_ends() -> None:
    assert scenario.shorten("abcdefghij", 7) == "abc…hij"
    assert scenario.shorten("abcdefg", 7) == "abcdefg"


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path, tmp_path / "logs", Console())


def test_a_failing_command_names_its_log_and_last_lines(runner: Runner) -> None:
    with pytest.raises(StepError) as caught:
        runner.run("images", ["sh", "-c", "echo building; echo disk is full >&2; exit 3"], timeout=10)
    assert caught.value.log == runner.logs / "images.log"
    assert "exited with 3" in caught.value.reason
    assert "disk is full" in caught.value.reason


def test_a_command_that_hangs_is_ended(runner: Runner) -> None:
    with pytest.raises(StepError, match="did not end within"):
        runner.run("cluster", ["sleep", "60"], timeout=0.3)


def test_capture_says_what_the_command_said(runner: Runner) -> None:
    assert runner.capture("tools", ["echo", "path"]) == "path\n"
    with pytest.raises(StepError, match="no such tool"):
        runner.capture("tools", ["sh", "-c", "echo no such tool >&2; exit 2"])


def test_together_raises_the_failure_after_all_have_ended(runner: Runner) -> None:
    ended: list[str] = []

    def fail() -> None:
        raise StepError("images", "broken")

    with pytest.raises(StepError, match="broken"):
        together(fail, lambda: ended.append("cluster"))
    assert ended == ["cluster"]
