"""The downloader's small parts: digests, ranges, redirects, retries, space, progress, settings."""

import errno
import hashlib
import threading
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from aiservice_downloader.client import redirect_target, shown
from aiservice_downloader.digests import Digest, Hasher, hash_file
from aiservice_downloader.errors import DownloadError, Reason, StopRequested
from aiservice_downloader.fetch_http import ContentRange, parse_content_range
from aiservice_downloader.fetch_hub import digest_of_etag
from aiservice_downloader.files import RemoteFile
from aiservice_downloader.progress import Progress, Stop
from aiservice_downloader.retry import Backoff, Patience, TransientError, parse_retry_after
from aiservice_downloader.settings import read_settings
from aiservice_downloader.space import Space
from aiservice_downloader.units import human_bytes

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def remote(path: str = "a", size: int | None = None) -> RemoteFile:
    return RemoteFile(path, f"http://m/{path}", Digest("sha256", SHA256), access_hint="ask", size=size)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_hasher_knows_both_of_the_hubs_digests() -> None:
    git = Hasher(Digest("git-sha1", "ce013625030ba8dba906f756967f9e9ca394464a"), size=6)
    git.update(b"hel")
    assert not git.matches()
    git.update(b"lo\n")
    assert git.matches()  # `echo hello | git hash-object --stdin`
    assert git.sha256 == hashlib.sha256(b"hello\n").hexdigest()
    with pytest.raises(ValueError, match="needs the size"):
        Hasher(Digest("git-sha1", "0" * 40), size=None)


def test_hashing_a_file_can_be_stopped(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(CONTENT)
    stop = Stop()
    stop.request()
    with pytest.raises(StopRequested):
        hash_file(path, Hasher(Digest("sha256", SHA256), None), stop.check)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes 5-9/10", ContentRange(5, 9, 10)),
        ("bytes 5-9/*", ContentRange(5, 9, None)),
        ("bytes */10", ContentRange(None, None, 10)),
        ("items 1-2/3", ContentRange(None, None, None)),
        (None, ContentRange(None, None, None)),
    ],
)
def test_content_ranges(value: str | None, expected: ContentRange) -> None:
    assert parse_content_range(value) == expected


@pytest.mark.parametrize(
    ("here", "location", "expected"),
    [
        ("https://a/x", "https://b/y?sig=1", "https://b/y?sig=1"),
        ("https://a/x/y", "../z", "https://a/z"),
        ("http://a/x", "https://b/y", "https://b/y"),
    ],
)
def test_redirects_that_are_followed(here: str, location: str, expected: str) -> None:
    assert str(redirect_target(httpx2.URL(here), location)) == expected


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("http://b/y", "from https to http"),
        ("file:///etc/passwd", "only http and https"),
        ("https://[::1/y", "cannot be read"),
    ],
)
def test_redirects_that_are_refused(location: str, expected: str) -> None:
    with pytest.raises(DownloadError, match=expected) as caught:
        redirect_target(httpx2.URL("https://a/x"), location)
    assert caught.value.reason is Reason.BAD_SOURCE


def test_addresses_are_shown_without_secrets() -> None:
    assert shown("https://me:pw@models.example/a/b.bin?X-Signature=s3cret#part") == "https://models.example/a/b.bin"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, 0.0),
        ("7", 7.0),
        ("99999", 120.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
    ],
)
def test_retry_after(value: str | None, expected: float) -> None:
    assert parse_retry_after(value, datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)) == expected


def test_delays_double_up_to_the_longest_less_some_chance() -> None:
    steady = Backoff(first=1.0, longest=30.0, chance=lambda: 0.0)
    assert [steady.delay(failures) for failures in (1, 2, 3, 4, 5, 6, 7, 5000)] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert Backoff(first=1.0, chance=lambda: 1.0).delay(2) == 1.0


def patience(attempts: int) -> Patience:
    return Patience(Backoff(attempts=attempts, first=0.0), Stop(), Progress(Clock()))


def test_patience_ends_after_failures_in_a_row_and_says_what_to_check() -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise TransientError("The server answered 503 Service Unavailable for http://m/a")

    with pytest.raises(
        DownloadError, match=r"503 Service Unavailable for http://m/a, 3 times in a row\. Check"
    ) as caught:
        patience(3).run(fail)
    assert len(calls) == 3
    assert caught.value.reason is Reason.UNREACHABLE
    assert caught.value.retryable


def test_an_attempt_that_gets_further_starts_the_count_anew_but_one_that_repeats_itself_does_not() -> None:
    positions = iter([10, 20, 30, 5, 30, 25])  # bytes after each attempt; 5: the server sent the file from the start
    position = 0
    attempts = 0

    def attempt() -> None:
        nonlocal position, attempts
        attempts += 1
        position = next(positions)
        raise TransientError("broken")

    with pytest.raises(DownloadError):
        patience(4).run(attempt, lambda: position)
    assert attempts == 6


def test_a_wait_ends_when_the_download_is_to_end() -> None:
    stop = Stop()
    threading.Timer(0.05, stop.request).start()
    slow = Patience(Backoff(first=60.0, longest=60.0), stop, Progress(Clock()))

    def fail() -> None:
        raise TransientError("broken")

    with pytest.raises(StopRequested):
        slow.run(fail)


@pytest.mark.parametrize(
    ("etag", "expected"),
    [
        ("a" * 64, Digest("sha256", "a" * 64)),
        ("B" * 40, Digest("git-sha1", "b" * 40)),
        ("a" * 32, None),
        ("z" * 64, None),
        ("", None),
        (None, None),
    ],
)
def test_the_hubs_etags_are_digests(etag: str | None, expected: Digest | None) -> None:
    assert digest_of_etag(etag) == expected


def test_a_model_that_fits_passes(tmp_path: Path) -> None:
    (tmp_path / "half").write_bytes(bytes(10 << 20))
    Space(tmp_path, capacity=20 << 20, free=lambda _: 11 << 20).check(missing=10 << 20)


def test_too_little_space_is_told_with_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        Space(tmp_path, capacity=None, free=lambda _: 5_000_000_000).check(missing=7_105_348_992)
    assert caught.value.reason is Reason.OUT_OF_SPACE
    assert caught.value.required_bytes == 7_105_348_992 + (1 << 20)
    assert "7.1 GB (7105348992 bytes)" in caught.value.message
    assert "5.0 GB (5000000000 bytes) free: raise storage.size" in caught.value.message


def test_a_volume_that_was_asked_for_too_small_is_told_even_if_the_disk_below_it_is_larger(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"have 6\.0 GB .* asked for with 5\.0 GB .*: raise storage.size") as caught:
        Space(tmp_path, capacity=5_000_000_000, free=lambda _: 10**12).check(missing=6_000_000_000, later=500)
    assert caught.value.reason is Reason.OUT_OF_SPACE
    assert caught.value.required_bytes == 6_000_000_500 + (1 << 20)


def test_a_size_that_nobody_tells_asks_for_twice_of_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "model.data").write_bytes(bytes(5000))
    assert Space(tmp_path, capacity=None).full(None).required_bytes == 10_000 + (1 << 20)
    assert Space(tmp_path, capacity=None).full(700).required_bytes == 5700 + (1 << 20)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, Reason.OUT_OF_SPACE),
        (errno.EDQUOT, Reason.OUT_OF_SPACE),
        (errno.EROFS, Reason.VOLUME_ERROR),
        (errno.EIO, Reason.VOLUME_ERROR),
    ],
)
def test_what_errors_of_the_volume_mean(tmp_path: Path, number: int, reason: Reason) -> None:
    assert Space(tmp_path, None, lambda _: 0).explain(OSError(number, "x")).reason is reason


def test_sizes_as_people_read_them() -> None:
    assert [human_bytes(n) for n in (0, 999, 1000, 6_938_041_050, 2 * 10**12)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "6.9 GB",
        "2.0 TB",
    ]


def test_progress_tells_the_speed_of_the_last_seconds_and_the_time_left() -> None:
    clock = Clock()
    progress = Progress(clock)
    assert progress.snapshot()["bytesTotal"] is None
    progress.plan([remote("a", 1000), remote("b", 5000)], lambda file: 400 if file.path == "a" else 0)
    first = progress.snapshot()
    assert (first["bytesDone"], first["bytesTotal"], first["bytesPerSecond"]) == (400, 6000, 0)
    assert first["etaSeconds"] is None
    clock.now += 2
    progress.received("b", 1000)
    assert progress.snapshot() == {
        "bytesDone": 1400,
        "bytesTotal": 6000,
        "bytesFetched": 1000,
        "bytesPerSecond": 500,
        "etaSeconds": 10,
        "file": "b",
    }
    for _ in range(10):  # the connection hangs: the speed of long ago does not count for ever
        clock.now += 2
        last = progress.snapshot()
    assert (last["bytesPerSecond"], last["etaSeconds"]) == (0, None)


def test_bytes_found_on_disk_count_as_done_but_not_as_speed() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.plan([remote("a", 1000)], lambda _: 0)
    clock.now += 1
    progress.at("a", 1000)
    fields = progress.snapshot()
    assert (fields["bytesDone"], fields["bytesPerSecond"], fields["etaSeconds"]) == (1000, 0, 0)


def test_the_total_is_unknown_until_every_size_is() -> None:
    progress = Progress(Clock())
    progress.plan([remote("a", 10), remote("b")], lambda _: 0)
    assert progress.total_bytes is None
    assert progress.missing_bytes == 10
    progress.set_size("b", 5)
    assert progress.total_bytes == progress.missing_bytes == 15


def test_why_nothing_moves_is_told_until_something_does() -> None:
    progress = Progress(Clock())
    progress.plan([remote("a", 10)], lambda _: 0)
    progress.note("the server is away")
    assert progress.snapshot()["note"] == "the server is away"
    progress.received("a", 1)
    assert "note" not in progress.snapshot()


SETTINGS = {"AISERVICE_SOURCE": '{"huggingFace": {"repo": "a/b"}}', "AISERVICE_CACHE_DIR": "/cache"}


def test_settings_come_from_the_environment_and_never_show_the_token() -> None:
    settings = read_settings({**SETTINGS, "AISERVICE_CAPACITY_BYTES": "1024", "HF_TOKEN": "hf_s3cret\n"})
    assert settings.cache_dir == Path("/cache")
    assert settings.capacity_bytes == 1024
    assert settings.token == "hf_s3cret"
    assert "s3cret" not in repr(settings)
    assert read_settings({**SETTINGS, "HF_TOKEN": ""}).token is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "AISERVICE_SOURCE is not set"),
        ({"AISERVICE_SOURCE": SETTINGS["AISERVICE_SOURCE"]}, "AISERVICE_CACHE_DIR is not set"),
        ({**SETTINGS, "AISERVICE_CAPACITY_BYTES": "5Gi"}, "AISERVICE_CAPACITY_BYTES is '5Gi'"),
        ({**SETTINGS, "AISERVICE_CAPACITY_BYTES": "0"}, "AISERVICE_CAPACITY_BYTES is '0'"),
    ],
)
def test_settings_that_are_wrong_are_named(environ: dict[str, str], expected: str) -> None:
    with pytest.raises(DownloadError, match=expected) as caught:
        read_settings(environ)
    assert caught.value.reason is Reason.BAD_SOURCE
