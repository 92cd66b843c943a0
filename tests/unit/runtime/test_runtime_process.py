"""The process as Kubernetes sees it: start, ports, probes, SIGTERM, exit code, termination message, log."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from support.service_process import Process
from support.toy_service import PATH, body

StartProcess = Callable[..., Process]


def wait_until_in_flight(base: str) -> None:
    """Waits until the process has a request in hand."""
    deadline = time.monotonic() + 60
    while 'aiservice_requests_in_flight{task="speech-to-text"} 1.0' not in httpx.get(base + "/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartProcess]:
    processes: list[Process] = []

    def begin(*arguments: str, **variables: str) -> Process:
        ports = {"AISERVICE_PORTS": "speech-to-text=0,image-to-text=0"}
        processes.append(Process("support.toy_engine", tmp_path, list(arguments), ports | variables))
        return processes[-1]

    yield begin
    for process in processes:
        process.child.kill()
        process.end()


def test_each_task_has_its_port_and_a_drain_finishes_what_runs(start: StartProcess) -> None:
    process = start(AISERVICE_NAME="toy", AISERVICE_NAMESPACE="tests", AISERVICE_DRAIN_SECONDS="60")
    process.wait_for("ready")
    ports = process.ports()
    assert set(ports) == {"speech-to-text", "image-to-text"}
    assert len(set(ports.values())) == 2
    for task, port in ports.items():
        assert httpx.post(f"http://127.0.0.1:{port}/api/{task}", json=body(say=task)).json()["text"] == task
        assert httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200

    base = f"http://127.0.0.1:{ports['speech-to-text']}"
    answers: list[httpx.Response] = []
    sender = threading.Thread(
        target=lambda: answers.append(httpx.post(base + PATH, json=body(say="last", seconds=5), timeout=60))
    )
    sender.start()
    wait_until_in_flight(base)
    process.child.send_signal(signal.SIGTERM)
    process.wait_for("draining")
    ready = httpx.get(base + "/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "draining")
    assert ready.headers["connection"] == "close"
    refused = httpx.post(base + PATH, json=body())
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "not_ready", "1")
    sender.join()
    assert answers[0].json()["text"] == "last"
    assert process.end() == 0
    assert not process.termination.exists()
    assert process.wait_for("ready")["service"] == "toy"


def test_the_drain_ends_in_time_even_if_a_request_does_not(start: StartProcess) -> None:
    process = start(AISERVICE_DRAIN_SECONDS="2", AISERVICE_TASKS="speech-to-text", AISERVICE_PORTS="speech-to-text=0")
    process.wait_for("ready")
    base = f"http://127.0.0.1:{process.ports()['speech-to-text']}"
    outcome: list[object] = []

    def send() -> None:
        try:
            outcome.append(httpx.post(base + PATH, json=body(seconds=30), timeout=60))
        except httpx.HTTPError as error:
            outcome.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    wait_until_in_flight(base)
    started = time.monotonic()
    process.child.send_signal(signal.SIGTERM)
    assert process.end() == 0
    assert time.monotonic() - started < 25  # 2 by the setting; the request alone has 30
    sender.join()
    assert outcome
    assert process.wait_for("the drain time is over")["given_up"] == 1


def test_sigterm_while_loading_ends_at_once(start: StartProcess) -> None:
    process = start(TOY_LOAD_SECONDS="30")
    process.ports()
    process.child.send_signal(signal.SIGTERM)
    started = time.monotonic()
    assert process.end() == 0
    assert time.monotonic() - started < 25  # loading alone has 30


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"TOY_LOAD_ERROR": "fatal"}, "No toy in /models: put one there."),
        ({"TOY_LOAD_ERROR": "crash"}, "Loading the model failed: RuntimeError: boom"),
        ({"AISERVICE_PRECISION": "fp8"}, "Wrong setting AISERVICE_PRECISION='fp8'"),
        ({"AISERVICE_QUEUE_SIZE": "many"}, "Wrong setting AISERVICE_QUEUE_SIZE='many'"),
        ({"AISERVICE_TASKS": "text-to-speech"}, "does not serve the task 'text-to-speech'"),
        ({"AISERVICE_PORTS": "speech-to-text=99999"}, "Wrong setting AISERVICE_PORTS="),
    ],
)
def test_what_keeps_it_from_serving_is_told_in_one_sentence(
    start: StartProcess, variables: dict[str, str], sentence: str
) -> None:
    process = start(**variables)
    assert process.end() == 1
    message = process.termination.read_text()
    assert sentence in message
    assert "\n" not in message
    assert any(sentence in line for line in process.lines)


def test_a_lost_device_ends_the_process_with_a_sentence(start: StartProcess) -> None:
    process = start()
    process.wait_for("ready")
    url = f"http://127.0.0.1:{process.ports()['speech-to-text']}{PATH}"
    assert httpx.post(url, json=body(lose=True)).status_code == 503
    assert process.end() == 1
    message = process.termination.read_text()
    assert message.startswith("The device stopped working: ToyDeviceError: no answer from the toy.")
    assert "\n" not in message


def test_a_device_thread_that_fails_ends_the_process_with_a_sentence(start: StartProcess) -> None:
    process = start(TOY_RECOVER_ERROR="crash")
    process.wait_for("ready")
    url = f"http://127.0.0.1:{process.ports()['speech-to-text']}{PATH}"
    assert httpx.post(url, json=body(fits=0), timeout=20).status_code == 503
    assert process.end() == 1
    message = process.termination.read_text()
    assert message.startswith("The device thread failed: RuntimeError: boom. The process ends")
    assert "\n" not in message


def test_the_parts_of_the_start_are_logged(start: StartProcess) -> None:
    ready = start(TOY_LOAD_SECONDS="0.2").wait_for("ready")
    assert ready["load_seconds"] >= 0.2
    assert {"import_seconds", "warm_up_seconds"} <= set(ready)
    assert ready["total_seconds"] > ready["import_seconds"] + ready["load_seconds"] + ready["warm_up_seconds"]


def test_a_taken_port_is_told(start: StartProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start(AISERVICE_PORTS=f"speech-to-text={taken.getsockname()[1]},image-to-text=0")
        assert process.end() == 1
    assert "Cannot listen on port" in process.termination.read_text()


def test_an_unknown_argument_is_told(start: StartProcess) -> None:
    process = start("--quick")
    assert process.end() == 1
    assert "--quick" in process.termination.read_text()


def test_arguments_win_over_variables_and_help_names_both(start: StartProcess) -> None:
    process = start(
        "--queue-size",
        "0",
        "--tasks=image-to-text",
        AISERVICE_QUEUE_SIZE="no number",
        AISERVICE_PORTS="image-to-text=0",
    )
    process.wait_for("ready")
    assert set(process.ports()) == {"image-to-text"}
    helped = start("--help")
    assert helped.end() == 0
    text = " ".join("".join(helped.lines).split())
    assert "--queue-size" in text
    assert "AISERVICE_QUEUE_SIZE" in text
    assert "more are answered 503" in text


def test_the_log_is_json_and_holds_no_media_prompts_or_texts(start: StartProcess) -> None:
    process = start()
    process.wait_for("ready")
    url = f"http://127.0.0.1:{process.ports()['speech-to-text']}{PATH}"
    secret = "a prompt nobody may read"
    httpx.post(url, json=body(b"media nobody may read", say=secret), headers={"X-Request-Id": "seen"})
    httpx.post(url, json={"audio": secret, "say": secret, secret: 1})
    httpx.post(url, json=body(say=secret, refuse=True))
    httpx.post(url, content=secret, headers={"Content-Type": "application/json"})
    process.child.send_signal(signal.SIGTERM)
    process.end()
    records = [json.loads(line) for line in process.lines]
    requests = [record for record in records if record["message"] == "request"]
    assert [record["outcome"] for record in requests] == ["ok", *["invalid_request"] * 3]
    assert requests[0]["request_id"] == "seen"
    assert {"time", "level", "task", "status", "seconds", "queue_seconds", "device_seconds"} <= set(requests[0])
    assert "nobody may read" not in "".join(process.lines)
    assert body(b"media nobody may read")["audio"] not in "".join(process.lines)
