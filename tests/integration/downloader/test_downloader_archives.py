"""Archives over HTTP: verified, then unpacked; and those that must not be."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import resource
import signal
import stat
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from backports import zstd

from support.downloads import Job, assert_published, content, sha256, wait_until
from support.file_server import FileServer
from support.registry_server import symlink, tar

FILES = {"config.json": b'{"a": 1}', "weights/model.bin": content(300_000), "empty": b""}


ZEROS = bytes(64 << 20)


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", compression) as archive:
        archive.writestr("weights/", b"")
        for name, data in files.items():
            archive.writestr(name, data)
    return output.getvalue()


def plain(files: dict[str, bytes]) -> bytes:
    return tar(files)


def source_of(server: FileServer, archive: bytes, *, digest: str = "", path: str = "model") -> dict[str, Any]:
    url = server.add("/archive", archive)
    return {"http": {"files": [{"url": url, "path": path, "sha256": digest or sha256(archive), "unpack": True}]}}


@pytest.mark.parametrize(
    "pack",
    [
        plain,
        lambda files: gzip.compress(tar(files)),
        lambda files: bz2.compress(tar(files)),
        lambda files: lzma.compress(tar(files)),
        lambda files: zstd.compress(tar(files)),
        zipped,
    ],
    ids=["tar", "gzip", "bzip2", "xz", "zstd", "zip"],
)
def test_archives_of_each_kind_are_unpacked(
    job: Job, server: FileServer, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    archive = pack(FILES)
    source = source_of(server, archive, path="sd/xl")
    url = server.add("/readme", b"hello")
    source["http"]["files"].append({"url": url, "path": "README.md", "sha256": sha256(b"hello")})
    outcome = job.run(source)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.message["fetchedBytes"] == len(archive) + 5
    assert outcome.message["files"] == 4
    assert_published(job, {**{f"sd/xl/{path}": data for path, data in FILES.items()}, "README.md": b"hello"})
    assert job.run(source).message["fetchedBytes"] == 0


def test_an_archive_with_the_wrong_digest_is_not_looked_into(job: Job, server: FileServer) -> None:
    outcome = job.run(source_of(server, b"not an archive at all", digest="0" * 64))
    assert outcome.failure == (2, "ChecksumMismatch", False)


def with_mode(name: str, mode: int, data: bytes) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, data)
    return output.getvalue()


def encrypted() -> bytes:
    data = bytearray(with_mode("a", stat.S_IFREG, b"1"))
    data[6] |= 1  # of the file's own head
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and of its entry in the directory
    return bytes(data)


def damaged(archive: bytes) -> bytes:
    middle = len(archive) // 2
    return archive[:middle] + bytes([archive[middle] ^ 0xFF]) + archive[middle + 1 :]


def with_directory_at(archive: bytes, offset: int) -> bytes:
    """A zip file that says its directory is elsewhere, so that its entries are before the beginning of the file."""
    data = bytearray(archive)
    end = data.index(b"PK\x05\x06")
    data[end + 16 : end + 20] = offset.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (b"#!/bin/sh", "neither a tar file"),
        (b"", "neither a tar file"),
        (gzip.compress(b"one file"), "cannot be unpacked"),
        (gzip.compress(tar({"a": content(50_000)}))[:20_000], "cannot be unpacked"),
        (tar({"a": content(50_000)})[:20_000], "cannot be unpacked"),
        (zipped({"a": b"1" * 100})[:-30], "cannot be unpacked"),
        (damaged(bz2.compress(tar({"a": content(300_000)}), 1)), "Invalid data stream"),
        (damaged(zipped({"a": content(50_000)}, zipfile.ZIP_BZIP2)), "Invalid data stream"),
        (with_directory_at(zipped({"a": b"1"}), 1 << 20), "cannot be unpacked"),
        (tar({"../../escape": b"1"}), "leads out"),
        (tar({"/etc/cron.d/job": b"1"}), "absolute path"),
        (tar({"a\nb": b"1"}), "control characters"),
        (tar({"x" * 256: b"1"}), "too long"),
        (tar([symlink("a", "/etc/shadow")]), "link out of the archive"),
        (tar([symlink("a", "../b")]), "link out of the archive"),
        (tar([symlink("dev", "", tarfile.BLKTYPE)]), "a device or a pipe"),
        (tar([symlink("pipe", "", tarfile.FIFOTYPE)]), "a device or a pipe"),
        (zipped({"../escape": b"1"}), "leads out"),
        (with_mode("a", stat.S_IFLNK, b"/etc/shadow"), "link out of the archive"),
        (with_mode("a", stat.S_IFCHR, b""), "a device or a pipe"),
        (encrypted(), "is encrypted"),
    ],
)
def test_what_must_not_or_cannot_be_unpacked(job: Job, server: FileServer, archive: bytes, words: str) -> None:
    outcome = job.run(source_of(server, archive))
    assert outcome.failure == (2, "BadSource", False)
    assert outcome.stderr == ""
    assert words in outcome.message["message"]
    assert not job.model.exists()
    assert sorted(path.name for path in job.root.iterdir()) == ["cache", "termination-log-0"]


def test_an_archive_without_files_is_told(job: Job, server: FileServer) -> None:
    assert job.run(source_of(server, tar({"folder": None}))).failure == (2, "NotFound", False)


@pytest.mark.parametrize(
    "packed", [gzip.compress(tar({"bomb": ZEROS}), 9), zipped({"bomb": ZEROS})], ids=["tar", "zip"]
)
def test_a_bomb_is_refused_before_a_byte_is_written(job: Job, server: FileServer, packed: bytes) -> None:
    assert len(packed) < 1 << 20
    job.environ["AISERVICE_CAPACITY_BYTES"] = str(8 << 20)
    outcome = job.run(source_of(server, packed))
    assert outcome.failure == (2, "OutOfSpace", False)
    assert outcome.message["requiredBytes"] > 64 << 20
    assert not list((job.cache / ".staging").rglob("bomb"))
    assert len(server.gets("/archive")) == 1


def test_an_archive_killed_in_the_middle_goes_on_where_it_was(job: Job, server: FileServer) -> None:
    files = {"model.bin": content(6 << 20)}
    archive = gzip.compress(tar(files))
    source = source_of(server, archive)
    server.bytes_per_second = 4 << 20
    process = job.start(source)
    wait_until(lambda: job.bytes_on_volume() > 2 << 20, "for two MiB on the volume")
    process.send_signal(signal.SIGKILL)
    job.finish(process)
    kept = job.bytes_on_volume()
    server.bytes_per_second = None
    outcome = job.run(source)
    assert (outcome.code, outcome.message["fetchedBytes"]) == (0, len(archive) - kept)
    assert server.body_bytes("/archive") - len(archive) < kept
    assert_published(job, {f"model/{path}": data for path, data in files.items()})


def test_a_file_of_very_many_names_is_unpacked_to_each(job: Job, server: FileServer) -> None:
    header = tarfile.TarInfo("model.bin")
    header.size = 5
    names = [f"link-{number:03}.bin" for number in range(300)]
    links = [symlink(name, "model.bin", tarfile.LNKTYPE) for name in names]
    source = source_of(server, tar([(header, b"bytes"), *links]))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        process = job.start(source)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    outcome = job.finish(process)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert_published(job, {f"model/{name}": b"bytes" for name in ["model.bin", *names]})


def test_one_of_two_archives_may_hold_no_files(job: Job, server: FileServer) -> None:
    source = source_of(server, tar(FILES))
    empty = tar({"folder": None})
    url = server.add("/empty", empty)
    source["http"]["files"].append({"url": url, "path": "more", "sha256": sha256(empty), "unpack": True})
    assert job.run(source).code == 0
    assert_published(job, {f"model/{path}": data for path, data in FILES.items()})


def test_two_archives_for_one_folder_are_refused(job: Job, server: FileServer) -> None:
    source = source_of(server, tar(FILES))
    source["http"]["files"].append({**source["http"]["files"][0], "path": "model/sub"})
    outcome = job.run(source)
    assert outcome.failure == (2, "BadSource", False)
    assert "'model' is both a file and the folder" in outcome.message["message"]
