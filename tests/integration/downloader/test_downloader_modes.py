"""Measuring a source without a volume, and verifying what is published."""

from __future__ import annotations

import gzip
import json
import signal
import uuid
from typing import Any

import pytest

from aiservice_downloader.download import Downloader
from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.guard import AllowedHosts, Guard
from aiservice_downloader.progress import Stop
from aiservice_downloader.retry import Backoff
from aiservice_downloader.settings import Mode, Settings
from aiservice_downloader.source import parse_source
from support.downloads import MANIFEST, Job, assert_published, content, http_source, sha256, wait_until
from support.file_server import Answer, FileServer, serving
from support.hub_server import HubServer
from support.registry_server import RegistryServer, file_layer, image_layer, tar
from support.s3_server import ACCESS_KEY, SECRET_KEY, S3Server

FILES = {"config.json": b'{"a": 1}', "weights/model.bin": content(300_000), "weights/more.bin": content(5000, "m")}
TOTAL = sum(len(data) for data in FILES.values())


def measured(job: Job, source: dict[str, Any]) -> dict[str, Any]:
    job.environ["AISERVICE_MODE"] = "measure"
    outcome = job.run(source)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert not job.cache.exists()
    return {name: value for name, value in outcome.message.items() if name != "status"}


def test_measuring_http(job: Job, server: FileServer) -> None:
    source = http_source(server, FILES)
    assert measured(job, source) == {"bytes": TOTAL, "downloadBytes": TOTAL, "files": 3, "revision": None}
    assert {request.method for request in server.requests} == {"HEAD"}
    server.answer_head = False
    assert measured(job, source) == {"bytes": None, "downloadBytes": None, "files": 3, "revision": None}


def test_measuring_an_archive_tells_what_is_fetched_only(job: Job, server: FileServer) -> None:
    archive = tar(FILES)
    url = server.add("/archive", archive)
    source = {"http": {"files": [{"url": url, "path": "model", "sha256": sha256(archive), "unpack": True}]}}
    assert measured(job, source) == {"bytes": None, "downloadBytes": len(archive), "files": 1, "revision": None}


def test_measuring_the_hub(job: Job, hub: HubServer) -> None:
    commit = hub.repository("a/b").commit(FILES)
    source = {"huggingFace": {"repo": "a/b", "endpoint": hub.url}}
    assert measured(job, source) == {"bytes": TOTAL, "downloadBytes": TOTAL, "files": 3, "revision": commit}
    source["huggingFace"]["include"] = "*.json"
    job.environ["AISERVICE_MODE"] = "measure"
    assert job.run(source).failure == (2, "BadSource", False)


def test_measuring_a_bucket(job: Job, s3: S3Server) -> None:
    bucket = s3.bucket(f"bucket-{uuid.uuid4().hex}", FILES)
    job.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    source = {"s3": {"bucket": bucket, "endpoint": f"http://127.0.0.1:{s3.port}", "pathStyle": True}}
    assert measured(job, source) == {"bytes": TOTAL, "downloadBytes": TOTAL, "files": 3, "revision": None}


def test_measuring_an_artifact_and_an_image(job: Job, registry: RegistryServer) -> None:
    repository = f"team/{uuid.uuid4().hex}"
    digest = registry.push(repository, "v1", [file_layer(path, data) for path, data in FILES.items()])
    source = {"oci": {"image": f"{registry.host}/{repository}:v1"}}
    assert measured(job, source) == {"bytes": TOTAL, "downloadBytes": TOTAL, "files": 3, "revision": digest}
    layer = image_layer(FILES)
    registry.push(repository, "v1", [layer])
    assert measured(job, source)["downloadBytes"] == len(layer.data)
    assert measured(job, source)["bytes"] is None


def verified(job: Job, source: dict[str, Any]) -> dict[str, Any]:
    job.environ["AISERVICE_MODE"] = "verify"
    outcome = job.run(source)
    assert (outcome.code, outcome.stderr) == (0, "")
    return outcome.message


def damage(job: Job, path: str) -> None:
    """Changes one bit of a published file and nothing else, as a bad disk does."""
    data = bytearray((job.model / path).read_bytes())
    data[len(data) // 2] ^= 1
    (job.model / path).write_bytes(data)


def test_a_whole_model_is_verified_without_asking_anybody(job: Job, server: FileServer) -> None:
    source = http_source(server, FILES)
    assert job.run(source).code == 0
    asked = len(server.requests)
    message = verified(job, source)
    assert message["repaired"] == []
    assert (message["bytes"], message["files"], message["fetchedBytes"]) == (TOTAL, 3, 0)
    assert len(server.requests) == asked
    assert_published(job, FILES)


def test_damaged_and_missing_files_are_fetched_again_and_no_others(job: Job, server: FileServer) -> None:
    source = http_source(server, FILES)
    assert job.run(source).code == 0
    kept = (job.model / "config.json").stat().st_ino
    damage(job, "weights/model.bin")
    (job.model / "weights/more.bin").unlink()
    message = verified(job, source)
    assert message["repaired"] == ["weights/model.bin", "weights/more.bin"]
    assert (message["repairedFiles"], message["fetchedBytes"]) == (2, 305_000)
    assert len(server.gets("/config.json")) == 1
    assert (job.model / "config.json").stat().st_ino == kept
    assert_published(job, FILES)


def test_a_branch_that_moved_is_mended_at_the_published_commit(job: Job, hub: HubServer) -> None:
    repository = hub.repository("a/b")
    commit = repository.commit(FILES)
    source = {"huggingFace": {"repo": "a/b", "endpoint": hub.url}}
    assert job.run(source).code == 0
    repository.commit({**FILES, "weights/model.bin": b"newer"})
    damage(job, "weights/model.bin")
    assert verified(job, source)["revision"] == commit
    assert_published(job, FILES)


def test_a_damaged_file_of_an_archive_and_of_an_image(job: Job, server: FileServer, registry: RegistryServer) -> None:
    archive = gzip.compress(tar(FILES))
    url = server.add("/archive", archive)
    source: dict[str, Any] = {
        "http": {"files": [{"url": url, "path": "model", "sha256": sha256(archive), "unpack": True}]}
    }
    assert job.run(source).code == 0
    damage(job, "model/weights/more.bin")
    assert verified(job, source)["repaired"] == ["model/weights/more.bin"]
    assert_published(job, {f"model/{path}": data for path, data in FILES.items()})

    job.environ["AISERVICE_MODE"] = "download"
    repository = f"team/{uuid.uuid4().hex}"
    registry.push(repository, "v1", [image_layer({f"models/{path}": data for path, data in FILES.items()})])
    source = {"oci": {"image": f"{registry.host}/{repository}:v1", "path": "models"}}
    assert job.run(source).code == 0
    registry.push(repository, "v1", [image_layer({"models/other": b"1"})])
    damage(job, "config.json")
    assert verified(job, source)["repaired"] == ["config.json"]
    assert_published(job, FILES)


def test_a_bucket_whose_object_changed_cannot_mend_what_was_published(job: Job, s3: S3Server) -> None:
    bucket = s3.bucket(f"bucket-{uuid.uuid4().hex}", FILES)
    job.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    source = {"s3": {"bucket": bucket, "endpoint": f"http://127.0.0.1:{s3.port}", "pathStyle": True}}
    assert job.run(source).code == 0
    damage(job, "config.json")
    assert verified(job, source)["repaired"] == ["config.json"]
    damage(job, "config.json")
    s3.client.put_object(Bucket=bucket, Key="config.json", Body=b"newer")
    outcome = job.run(source)
    assert outcome.failure == (2, "ChecksumMismatch", False)
    assert "config.json on the volume is missing or not what was published" in outcome.message["message"]
    assert "no longer gives what was published" in outcome.message["message"]


def test_a_source_that_cannot_mend_it_is_told_with_the_files(job: Job, server: FileServer) -> None:
    source = http_source(server, FILES)
    assert job.run(source).code == 0
    damage(job, "weights/model.bin")
    server.faults["/weights/model.bin"] = [Answer(404)]
    job.environ["AISERVICE_MODE"] = "verify"
    outcome = job.run(source)
    assert outcome.failure == (2, "ChecksumMismatch", False)
    assert "weights/model.bin on the volume is missing or not" in outcome.message["message"]
    assert "(NotFound)" in outcome.message["message"]


def test_damage_that_finds_no_room_to_be_mended_is_told_with_the_files_and_the_room(
    job: Job, server: FileServer
) -> None:
    source = http_source(server, FILES)
    assert job.run(source).code == 0
    damage(job, "weights/model.bin")
    broken = (job.model / "weights/model.bin").read_bytes()
    job.environ |= {"AISERVICE_MODE": "verify", "AISERVICE_CAPACITY_BYTES": str(TOTAL + 100_000)}
    outcome = job.run(source)
    assert outcome.failure == (2, "ChecksumMismatch", False)
    assert "weights/model.bin on the volume is missing or not" in outcome.message["message"]
    assert "(OutOfSpace)" in outcome.message["message"]
    required = outcome.message["requiredBytes"]
    assert TOTAL + 300_000 < required < TOTAL + 300_000 + (2 << 20)
    assert (job.model / "weights/model.bin").read_bytes() == broken  # it stays until another can take its place
    job.environ["AISERVICE_CAPACITY_BYTES"] = str(required)  # as the operator lets the volume grow
    assert verified(job, source)["repaired"] == ["weights/model.bin"]
    assert_published(job, FILES)


def test_damage_on_a_volume_that_cannot_be_written_is_told_with_the_files(job: Job, server: FileServer) -> None:
    source = http_source(server, FILES)
    assert job.run(source).code == 0
    damage(job, "config.json")
    (job.cache / ".partial").write_text("a file where a folder should be")
    job.environ["AISERVICE_MODE"] = "verify"
    outcome = job.run(source)
    assert outcome.failure == (1, "ChecksumMismatch", True)
    assert "config.json on the volume is missing or not" in outcome.message["message"]
    assert "(VolumeError)" in outcome.message["message"]


def test_a_file_of_an_archive_needs_room_for_the_archive_and_itself_only(job: Job, server: FileServer) -> None:
    archive = gzip.compress(tar(FILES))
    url = server.add("/archive", archive)
    source = {"http": {"files": [{"url": url, "path": "model", "sha256": sha256(archive), "unpack": True}]}}
    assert job.run(source).code == 0
    damage(job, "model/config.json")
    job.environ |= {"AISERVICE_MODE": "verify", "AISERVICE_CAPACITY_BYTES": str(TOTAL + 1000)}
    outcome = job.run(source)
    assert outcome.failure == (2, "ChecksumMismatch", False)
    assert outcome.message["requiredBytes"] < TOTAL + len(archive) + (1 << 20) + 2000
    job.environ["AISERVICE_CAPACITY_BYTES"] = str(TOTAL + len(archive) + 2000)
    assert verified(job, source)["repaired"] == ["model/config.json"]
    assert_published(job, {f"model/{path}": data for path, data in FILES.items()})


def test_a_full_volume_is_verified_and_damage_on_it_is_told(job: Job, server: FileServer) -> None:
    source = http_source(server, FILES)
    assert job.run(source).code == 0
    settings = Settings(parse_source(json.dumps(source)), job.cache, Mode.VERIFY)

    def verify() -> object:
        # It is looked at all the time whether there is room.
        return Downloader(
            settings, Guard(AllowedHosts()), lambda _: None, Stop(), free=lambda _: 0, report_seconds=0
        ).run()

    verify()
    damage(job, "config.json")
    with pytest.raises(DownloadError, match=r"config\.json on the volume is missing or not .*\(OutOfSpace\)") as caught:
        verify()
    assert caught.value.reason is Reason.CHECKSUM_MISMATCH
    assert caught.value.required_bytes is not None


def test_a_source_that_is_away_leaves_the_rest_of_the_model_and_says_so(job: Job) -> None:
    with serving(FileServer()) as server:
        source = http_source(server, FILES)
        assert job.run(source).code == 0
    damage(job, "weights/model.bin")
    (job.model / "config.json").unlink()
    settings = Settings(parse_source(json.dumps(source)), job.cache, Mode.VERIFY)
    downloader = Downloader(settings, Guard(AllowedHosts()), lambda _: None, Stop(), backoff=Backoff(attempts=1))
    with pytest.raises(DownloadError, match=r"weights/model\.bin on the volume are missing or not") as caught:
        downloader.run()
    assert (caught.value.reason, caught.value.retryable) == (Reason.CHECKSUM_MISMATCH, True)
    assert "config.json" in caught.value.message
    assert "(Unreachable)" in caught.value.message
    assert (job.model / "weights/more.bin").read_bytes() == FILES["weights/more.bin"]


def test_verifying_what_was_never_published_publishes_it(job: Job, server: FileServer) -> None:
    source = http_source(server, FILES)
    message = verified(job, source)
    assert message["repaired"] == sorted(FILES)
    assert_published(job, FILES)
    (job.model / MANIFEST).write_text("{")
    assert verified(job, source)["repaired"] == sorted(FILES)
    assert_published(job, FILES)


def test_a_repair_that_was_killed_goes_on(job: Job, server: FileServer) -> None:
    files = {"large.bin": content(4 << 20), "small.bin": b"1"}
    source = http_source(server, files)
    assert job.run(source).code == 0
    damage(job, "large.bin")
    server.bytes_per_second = 2 << 20
    job.environ["AISERVICE_MODE"] = "verify"
    process = job.start(source)
    wait_until(lambda: job.bytes_on_volume() > 1 << 20, "for a MiB on the volume")
    process.send_signal(signal.SIGKILL)
    job.finish(process)
    kept = job.bytes_on_volume()
    server.bytes_per_second = None
    message = verified(job, source)
    assert message["fetchedBytes"] == (4 << 20) - kept
    assert_published(job, files)


def test_a_long_list_of_repaired_files_keeps_the_message_whole(job: Job, server: FileServer) -> None:
    files = {f"part-{number:04}-of-a-model-with-many-parts.bin": b"%d" % number for number in range(300)}
    message = verified(job, http_source(server, files))
    assert message["repairedFiles"] == 300
    assert 10 < len(message["repaired"]) < 300
    assert len(json.dumps(message)) < 4096


@pytest.mark.parametrize("mode", ["repair", "Verify"])
def test_an_unknown_mode_is_told(job: Job, server: FileServer, mode: str) -> None:
    job.environ["AISERVICE_MODE"] = mode
    outcome = job.run(http_source(server, FILES))
    assert outcome.failure == (2, "BadSource", False)
    assert "give one of download, measure, verify" in outcome.message["message"]
