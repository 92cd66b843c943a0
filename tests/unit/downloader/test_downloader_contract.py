"""What operator and downloader say to each other; tests/data/contract holds it, and the operator's tests read it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiservice_downloader.__main__ import fail, succeed
from aiservice_downloader.digests import Digest
from aiservice_downloader.download import Measured, Published
from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.files import RemoteFile
from aiservice_downloader.progress import Progress, write_event
from aiservice_downloader.settings import Mode, read_settings, termination_log

CONTRACT = Path(__file__).parents[2] / "data/contract"
JOBS: dict[str, dict[str, Any]] = json.loads((CONTRACT / "jobs.json").read_text())
SECRETS = {"DOCKER_AUTH_CONFIG": '{"auths": {}}'}
"""What is in a Secret, where it cannot be any word."""
OTHERS = {"HOME", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
"""Variables that libraries read."""
COMMIT = "c" * 40


class Environment(dict[str, str]):
    """Variables of a process, which remembers those that were asked for."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__(job["values"])
        self.update((name, SECRETS.get(name, "secret")) for name in job["secrets"])
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


@pytest.mark.parametrize("name", JOBS)
def test_everything_that_a_job_tells_is_taken(name: str) -> None:
    environ = Environment(JOBS[name])
    settings = read_settings(environ)
    assert termination_log(environ) == Path("/dev/termination-log")
    assert set(environ) - environ.asked == OTHERS
    assert settings.source.to_wire() == json.loads(environ["AISERVICE_SOURCE"])
    assert settings.revision == environ.get("AISERVICE_REVISION")
    assert settings.capacity_bytes == (40 << 30 if settings.mode is not Mode.MEASURE else None)
    assert settings.allowed_hosts.has_name("minio.storage.svc")
    assert [str(denied.network) for denied in settings.denied] == ["2001:db8:42::/48"]
    assert settings.proxies == {"proxy.test"}


def test_jobs_are_for_every_mode() -> None:
    assert {read_settings(Environment(job)).mode for job in JOBS.values()} == set(Mode)


@pytest.mark.parametrize("name", JOBS)
def test_a_source_with_a_field_that_nobody_knows_is_refused(name: str) -> None:
    environ = Environment(JOBS[name])
    source = json.loads(environ["AISERVICE_SOURCE"])
    (kind,) = source
    for holder in (source[kind], source, *source[kind].get("files", [])):
        holder["renamed"] = True
        environ["AISERVICE_SOURCE"] = json.dumps(source)
        with pytest.raises(DownloadError, match="renamed: Extra inputs are not permitted") as caught:
            read_settings(environ)
        assert caught.value.reason is Reason.BAD_SOURCE
        del holder["renamed"]


def progress_line() -> dict[str, Any]:
    """A line in the middle of a download."""
    now = 0.0
    progress, out = Progress(lambda: now), io.StringIO()
    digest = Digest("sha256", "0" * 64)
    files = [RemoteFile(path, f"https://models.test/{path}", digest, "ask", size=3000) for path in "ab"]
    progress.plan(files, lambda file: 400 if file.path == "a" else 0)
    now = 2.0
    progress.received("b", 1000)
    write_event(out, "progress", **progress.snapshot())
    return dict(json.loads(out.getvalue()))


def last_words(say: Callable[[Path, io.StringIO], int], folder: Path) -> dict[str, Any]:
    """The termination message of an end."""
    say(folder / "message", io.StringIO())
    return dict(json.loads((folder / "message").read_text()))


def test_the_operators_tests_read_what_is_said(tmp_path: Path) -> None:
    published, mended = Published(6000, 2, COMMIT, 6000), Published(6000, 2, None, 3000, ("a", "b"))
    full = DownloadError(Reason.OUT_OF_SPACE, "The volume is full.", required_bytes=9000)
    full.revision = COMMIT
    said = {
        "progress": progress_line(),
        "downloaded": last_words(lambda file, out: succeed(published, Mode.DOWNLOAD, file, out), tmp_path),
        "measured": last_words(
            lambda file, out: succeed(Measured(6000, 4000, 2, COMMIT), Mode.MEASURE, file, out), tmp_path
        ),
        "verified": last_words(lambda file, out: succeed(mended, Mode.VERIFY, file, out), tmp_path),
        "failed": last_words(lambda file, out: fail(full, file, out), tmp_path),
        "reasons": sorted(Reason),
    }
    file = CONTRACT / "words.json"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(json.dumps(said, indent=2) + "\n")
    assert said == json.loads(file.read_text())
