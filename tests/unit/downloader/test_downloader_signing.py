"""S3's checksums and addresses, and where logins for registries may go. Nothing here is connected to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aiservice_downloader.client import HttpClient
from aiservice_downloader.digests import Digest, Hasher
from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.fetch_s3 import _Bucket, digest_of
from aiservice_downloader.guard import AllowedHosts, Guard
from aiservice_downloader.image_name import parse_image
from aiservice_downloader.progress import Progress, Stop
from aiservice_downloader.registry import Registry
from aiservice_downloader.registry_login import Login
from aiservice_downloader.retry import Backoff, Patience
from aiservice_downloader.settings import S3Keys
from aiservice_downloader.source import parse_source

MD5 = "5d41402abc4b2a76b9719d911017c592"
SHA256 = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="  # of "hello", as S3 writes it
PATIENCE = Patience(Backoff(attempts=1), Stop(), Progress(lambda: 0.0))
GUARD = Guard(AllowedHosts())


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ({"ETag": f'"{MD5}"'}, Digest("md5", MD5)),
        ({"ETag": f'"{MD5}"', "ServerSideEncryption": "AES256"}, Digest("md5", MD5)),
        ({"ETag": f'"{MD5}-2"', "ChecksumCRC64NVME": "M3eFcAZSQlc="}, Digest("crc64nvme", "3377857006524257")),
        (
            {"ETag": f'"{MD5}"', "ServerSideEncryption": "aws:kms", "ChecksumCRC32": "NhCmhg=="},
            Digest("crc32", "3610a686"),
        ),
        (
            {"ETag": f'"{MD5}"', "SSECustomerAlgorithm": "AES256", "ChecksumCRC32C": "mnG7TA=="},
            Digest("crc32c", "9a71bb4c"),
        ),
        ({"ETag": f'"{MD5}-2"', "ChecksumSHA256": f"{SHA256}-2"}, Digest("etag", f'"{MD5}-2"')),
        (
            {"ETag": f'"{MD5}"', "ChecksumSHA256": SHA256},
            Digest("sha256", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
        ),
    ],
)
def test_the_best_of_what_s3_tells_is_verified(head: dict[str, Any], expected: Digest) -> None:
    assert digest_of(head) == expected
    hasher = Hasher(expected, 5)
    hasher.update(b"hel")
    assert not hasher.matches()
    hasher.update(b"lo")
    assert hasher.matches()


def bucket(keys: S3Keys | None, **fields: Any) -> _Bucket:
    source = parse_source(json.dumps({"s3": {"bucket": "models", **fields}})).s3
    assert source is not None
    return _Bucket(source, keys, PATIENCE, GUARD)


OBJECT = {"Bucket": "models", "Key": "sd xl/a+b.bin"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "https://models.s3.amazonaws.com/sd%20xl/a%2Bb.bin"),
        ({"region": "eu-central-1"}, "https://models.s3.eu-central-1.amazonaws.com/sd%20xl/a%2Bb.bin"),
        ({"endpoint": "https://s3.corp"}, "https://models.s3.corp/sd%20xl/a%2Bb.bin"),
        ({"endpoint": "http://s3.corp:9000", "pathStyle": True}, "http://s3.corp:9000/models/sd%20xl/a%2Bb.bin"),
    ],
)
def test_addresses_of_objects(fields: dict[str, Any], expected: str) -> None:
    assert bucket(None, **fields)._sign(OBJECT).url == expected
    signed = bucket(S3Keys("AKIA", "secret", "session"), **fields)._sign(OBJECT).url
    assert signed.startswith(f"{expected}?X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    assert "X-Amz-Security-Token=session" in signed


@pytest.mark.parametrize("realm", ["http://tokens.example/t", "ftp://tokens.example", "", "/token"])
def test_a_login_never_goes_to_an_address_without_https(realm: str) -> None:
    client = HttpClient(GUARD)
    registry = Registry(parse_image("ghcr.io/team/sdxl"), Login("user", "s3cret"), client, PATIENCE)
    with pytest.raises(DownloadError, match="no https address") as caught:
        registry._check_realm(realm)
    assert caught.value.reason is Reason.BAD_SOURCE
    registry._check_realm("https://tokens.example/t")
    client.close()
