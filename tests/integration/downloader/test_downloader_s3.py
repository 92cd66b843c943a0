"""Objects of a bucket, from a real S3 server: listed, verified, resumed; and S3's ways to say no."""

from __future__ import annotations

import json
import signal
import uuid
from dataclasses import replace
from typing import Any

import pytest

from support.downloads import Job, assert_published, content, first_note, wait_until
from support.file_server import Answer, FileServer
from support.relay import relaying
from support.s3_server import ACCESS_KEY, SECRET_KEY, S3Server

FILES = {"config.json": b'{"a": 1}', "weights/model.bin": content(2 << 20), "weights/extra.bin": b"more"}


@pytest.fixture
def bucket(s3: S3Server) -> str:
    objects = {f"models/sdxl/{path}": data for path, data in FILES.items()}
    return s3.bucket(
        f"bucket-{uuid.uuid4().hex}", {**objects, "models/sdxl-turbo/other.bin": b"x", "models/sdxl/": b""}
    )


@pytest.fixture
def job(job: Job) -> Job:
    job.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    return job


def source_of(port: int, name: str, **fields: Any) -> dict[str, Any]:
    endpoint = f"http://127.0.0.1:{port}"
    found = {"bucket": name, "prefix": "models/sdxl", "endpoint": endpoint, "pathStyle": True}
    return {"s3": {**found, **fields}}


def test_objects_below_a_prefix_are_published_and_a_second_run_asks_nobody(job: Job, s3: S3Server, bucket: str) -> None:
    with relaying(s3.port) as relay:
        source = source_of(relay.port, bucket)
        outcome = job.run(source)
        assert (outcome.code, outcome.stderr) == (0, "")
        total = sum(len(data) for data in FILES.values())
        assert outcome.message == {"status": "ok", "bytes": total, "files": 3, "revision": None, "fetchedBytes": total}
        assert_published(job, FILES)
        sent = relay.sent
        assert job.run(source).message["fetchedBytes"] == 0
        assert relay.sent == sent
    text = json.dumps(outcome.lines) + json.dumps(outcome.message)
    assert SECRET_KEY not in text
    assert "X-Amz" not in text


def test_globs_choose_objects(job: Job, s3: S3Server, bucket: str) -> None:
    outcome = job.run(source_of(s3.port, bucket, include=["weights/"], exclude=["*extra*"]))
    assert outcome.code == 0
    assert_published(job, {"weights/model.bin": FILES["weights/model.bin"]})


def test_a_list_of_many_pages_is_read_to_its_end(job: Job, s3: S3Server) -> None:
    files = {f"{number:04}.txt": b"%d" % number for number in range(1005)}  # a page holds a thousand
    bucket = s3.bucket(f"bucket-{uuid.uuid4().hex}", files)
    outcome = job.run(source_of(s3.port, bucket, prefix="", include=["0000.txt", "10*.txt"]))
    assert outcome.code == 0
    assert_published(job, {name: data for name, data in files.items() if name == "0000.txt" or name.startswith("10")})


def test_an_object_uploaded_in_parts_killed_in_the_middle_goes_on_where_it_was(job: Job, s3: S3Server) -> None:
    bucket = s3.bucket(f"bucket-{uuid.uuid4().hex}", {})
    data = content(11 << 20)
    s3.put_in_parts(bucket, "models/sdxl/model.bin", [data[: 6 << 20], data[6 << 20 :]])
    with relaying(s3.port) as relay:
        source = source_of(relay.port, bucket)
        relay.bytes_per_second = 8 << 20
        process = job.start(source)
        wait_until(lambda: job.bytes_on_volume() > 4 << 20, "for four MiB on the volume")
        process.send_signal(signal.SIGKILL)
        job.finish(process)
        kept = job.bytes_on_volume()
        relay.bytes_per_second = None
        outcome = job.run(source)
        assert outcome.code == 0
        assert outcome.message["fetchedBytes"] == len(data) - kept
        # Sent twice is only what was on its way to the process that died, and the lists and heads: not what was kept.
        assert relay.sent - len(data) < kept
    assert_published(job, {"model.bin": data})


def test_an_object_that_changes_between_two_attempts_is_not_mixed(job: Job, s3: S3Server) -> None:
    bucket = s3.bucket(f"bucket-{uuid.uuid4().hex}", {})
    old, new = content(6 << 20, "old"), content(6 << 20, "new")
    s3.put_in_parts(bucket, "models/sdxl/model.bin", [old[: 5 << 20], old[5 << 20 :]])
    with relaying(s3.port) as relay:
        relay.bytes_per_second = 2 << 20
        process = job.start(source_of(relay.port, bucket))
        wait_until(lambda: job.bytes_on_volume() > 1 << 20, "for a MiB on the volume")
        process.send_signal(signal.SIGKILL)
        job.finish(process)
        s3.put_in_parts(bucket, "models/sdxl/model.bin", [new[: 5 << 20], new[5 << 20 :]])
        relay.bytes_per_second = None
        assert job.run(source_of(relay.port, bucket)).code == 0
    assert_published(job, {"model.bin": new})


def test_an_object_replaced_while_it_is_fetched_is_told_and_taken_next_time(
    job: Job, s3: S3Server, bucket: str
) -> None:
    with relaying(s3.port) as relay:
        source = source_of(relay.port, bucket)
        relay.bytes_per_second = 256 << 10
        process = job.start(source)
        wait_until(lambda: job.bytes_on_volume() > 200 << 10, "for some bytes")
        replaced = content(2 << 20, "replaced")
        s3.client.put_object(Bucket=bucket, Key="models/sdxl/weights/model.bin", Body=replaced)
        relay.drop()
        relay.bytes_per_second = None
        outcome = job.finish(process)
        assert outcome.failure == (1, "Interrupted", True)
        assert "weights/model.bin was replaced" in outcome.message["message"]
        assert job.run(source).code == 0
    assert_published(job, {**FILES, "weights/model.bin": replaced})


@pytest.mark.parametrize("algorithm", ["SHA256", "CRC32", "CRC32C", "CRC64NVME"])
def test_wrong_content_is_caught_by_each_kind_of_checksum(job: Job, s3: S3Server, algorithm: str) -> None:
    bucket = s3.bucket(f"bucket-{uuid.uuid4().hex}", {})
    data = content(100_000)
    s3.client.put_object(Bucket=bucket, Key="models/sdxl/a", Body=data, ChecksumAlgorithm=algorithm)
    path = s3.folder / bucket / "models/sdxl/a"
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # on the disk of the server, behind its back
    outcome = job.run(source_of(s3.port, bucket))
    assert outcome.failure == (2, "ChecksumMismatch", False)
    assert "a from" in outcome.message["message"]
    assert not job.model.exists()


@pytest.mark.parametrize(
    "case",
    [
        ({}, {"bucket": "no-such-bucket"}, (2, "NotFound", False), "correct bucket"),
        ({}, {"prefix": "models/none"}, (2, "NotFound", False), "holds 0 objects"),
        ({}, {"include": ["*.gguf"]}, (2, "NotFound", False), "holds 3 objects"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, {}, (2, "Unauthorized", False), "SignatureDoesNotMatch"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, {}, (2, "Unauthorized", False), "name a Secret"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, {}, (2, "BadSource", False), "AWS_SECRET_ACCESS_KEY is missing"),
        ({}, {"region": "eu west"}, (2, "BadSource", False), "s3.region"),
    ],
)
def test_what_will_not_change_ends_it_at_once(
    job: Job, s3: S3Server, bucket: str, case: tuple[dict[str, str], dict[str, Any], tuple[int, str, bool], str]
) -> None:
    environ, fields, failure, words = case
    job.environ |= environ
    outcome = job.run(source_of(s3.port, bucket, **fields))
    assert outcome.failure == failure
    assert words in outcome.message["message"]


def test_a_region_that_is_not_the_buckets_is_corrected(job: Job, s3: S3Server, bucket: str) -> None:
    assert job.run(source_of(s3.port, bucket, region="eu-west-1")).code == 0
    assert_published(job, FILES)


def test_an_endpoint_that_is_no_s3_is_told(job: Job, server: Any) -> None:
    server.add("/models", b"<html>Welcome</html>")
    outcome = job.run(source_of(server.port, "models"))
    assert outcome.failure == (2, "NotFound", False)
    assert "holds 0 objects" in outcome.message["message"]
    assert "correct endpoint" in outcome.message["message"]
    server.files["/models"] = b"Welcome"  # no XML: the library takes it for a fault of the server
    assert "answered 500" in first_note(job, source_of(server.port, "models"))


@pytest.mark.parametrize(
    "answer",
    [
        Answer(408),
        Answer(429),
        Answer(400, body=b"<Error><Code>TooManyRequests</Code><Message>Slow down</Message></Error>"),
    ],
    ids=["408", "429", "by-code"],
)
def test_a_busy_server_is_asked_again(job: Job, server: FileServer, answer: Answer) -> None:
    answer = replace(answer, headers={"Retry-After": "7"})
    server.faults["/models"] = [answer] * 9
    note = first_note(job, source_of(server.port, "models"))
    assert f"answered {answer.status}" in note
    assert "trying again in 7 s" in note


def test_nobody_at_the_endpoint(job: Job) -> None:
    with relaying(1) as gone:
        pass
    assert "for s3://models/models/sdxl/ failed" in first_note(job, source_of(gone.port, "models"))


def test_a_bucket_open_to_everyone_needs_no_keys(job: Job, s3: S3Server, bucket: str) -> None:
    everyone = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:ListBucket"]}
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    s3.client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": [{**everyone, "Resource": resources}]}))
    del job.environ["AWS_ACCESS_KEY_ID"], job.environ["AWS_SECRET_ACCESS_KEY"]
    assert job.run(source_of(s3.port, bucket)).code == 0
    assert_published(job, FILES)


def test_a_bucket_that_does_not_fit_is_refused_before_a_byte(job: Job, s3: S3Server, bucket: str) -> None:
    job.environ["AISERVICE_CAPACITY_BYTES"] = str(1 << 20)
    outcome = job.run(source_of(s3.port, bucket))
    assert outcome.failure == (2, "OutOfSpace", False)
    total = sum(len(data) for data in FILES.values())
    assert total < outcome.message["requiredBytes"] < total + (2 << 20)
    assert job.bytes_on_volume() == 0
