"""Names of images, logins for registries, and what registries ask for."""

from __future__ import annotations

import json

import pytest

from aiservice_downloader.errors import DownloadError
from aiservice_downloader.image_name import ImageName, parse_image
from aiservice_downloader.registry import Challenge, parse_challenge
from aiservice_downloader.registry_login import Login, parse_logins
from aiservice_downloader.settings import Settings, read_settings
from aiservice_downloader.source import parse_source

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "expected", "api"),
    [
        ("ghcr.io/team/sdxl:v1", ImageName("ghcr.io", "team/sdxl", "v1"), "https://ghcr.io/v2/team/sdxl"),
        ("r.corp:5000/a/b_c/d", ImageName("r.corp:5000", "a/b_c/d", "latest"), "https://r.corp:5000/v2/a/b_c/d"),
        (f"ghcr.io/a@{DIGEST}", ImageName("ghcr.io", "a", DIGEST), "https://ghcr.io/v2/a"),
        (f"ghcr.io/a:v1@{DIGEST}", ImageName("ghcr.io", "a", DIGEST), "https://ghcr.io/v2/a"),
        (
            "docker.io/alpine",
            ImageName("docker.io", "library/alpine", "latest"),
            "https://registry-1.docker.io/v2/library/alpine",
        ),
        ("localhost/a:b", ImageName("localhost", "a", "b"), "http://localhost/v2/a"),
        ("[::1]:5000/a", ImageName("[::1]:5000", "a", "latest"), "http://[::1]:5000/v2/a"),
    ],
)
def test_names_of_images(text: str, expected: ImageName, api: str) -> None:
    assert parse_image(text) == expected
    assert expected.api == api


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alpine:3", "is no image"),
        ("team/sdxl:v1", "names no registry"),
        ("ghcr.io/Team/sdxl", "is no image"),
        ("https://ghcr.io/team/sdxl", "is no image"),
        ("ghcr.io/team/sdxl@sha256:abc", "is no image"),
        ("ghcr.io/team/../sdxl", "is no image"),
        ("ghcr.io/team/sdxl:v1\n", "is no image"),
    ],
)
def test_what_is_no_image(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_image(text)


def test_the_login_of_the_longest_place_is_taken() -> None:
    logins = parse_logins(
        json.dumps(
            {
                "auths": {
                    "https://ghcr.io": {"username": "host", "password": "1"},
                    "ghcr.io/team": {"username": "team", "password": "2"},
                    "*.corp:5000": {"username": "any", "password": "3"},
                    "https://index.docker.io/v1/": {"username": "hub", "password": "4"},
                }
            }
        )
    )

    def user(image: str) -> str | None:
        login = logins.for_image(parse_image(image))
        return login.user if login else None

    assert user("ghcr.io/team/sdxl") == "team"
    assert user("ghcr.io/teams/sdxl") == "host"
    assert user("a.corp:5000/x") == "any"
    assert user("a.b.corp:5000/x") is None
    assert user("docker.io/x") == "hub"
    assert user("quay.io/x") is None


def test_logins_show_no_secret() -> None:
    logins = parse_logins('{"auths": {"ghcr.io": {"auth": "dXNlcjpzM2NyZXQ="}}}')
    login = logins.for_image(parse_image("ghcr.io/x"))
    assert login == Login("user", "s3cret")
    assert "s3cret" not in repr(logins) + repr(login)
    for text in ('{"auths": {"ghcr.io": {"auth": "s3cret"}}}', '{"auths": {"ghcr.io": "s3cret"}}', "s3cret", "{}"):
        with pytest.raises(ValueError, match=r"auth|JSON") as caught:
            parse_logins(text)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth/t",service="r",scope="repository:a:pull,push"',
            Challenge("bearer", {"realm": "https://auth/t", "service": "r", "scope": "repository:a:pull,push"}),
        ),
        ('Basic realm="x"', Challenge("basic", {"realm": "x"})),
        ('Basic realm="x", Bearer realm="https://y"', Challenge("bearer", {"realm": "https://y"})),
        ("Negotiate", None),
        (None, None),
    ],
)
def test_challenges(header: str | None, expected: Challenge | None) -> None:
    assert parse_challenge(header) == expected


OCI = json.dumps({"oci": {"image": "ghcr.io/team/sdxl:v1"}})
HTTP = json.dumps({"http": {"files": [{"url": "http://m/a", "path": "a", "sha256": "a" * 64}]}})


def settings(source: str, **environ: str) -> Settings:
    return read_settings({"AISERVICE_SOURCE": source, "AISERVICE_CACHE_DIR": "/cache", **environ})


@pytest.mark.parametrize(
    ("source", "environ", "expected"),
    [
        (OCI, {"AISERVICE_REVISION": "v1"}, "a sha256 digest in full"),
        ('{"huggingFace": {"repo": "a/b"}}', {"AISERVICE_REVISION": "main"}, "a commit in full"),
        (HTTP, {"AISERVICE_REVISION": DIGEST}, "only huggingFace and oci sources have revisions"),
        (HTTP, {"AISERVICE_ALLOWED_HOSTS": '["10.0.0.1/8"]'}, r"Correct the operator's download\.allowedHosts"),
        (OCI, {"DOCKER_AUTH_CONFIG": "{}"}, "kubectl create secret docker-registry"),
        (HTTP, {"AWS_ACCESS_KEY_ID": "AKIA"}, "AWS_SECRET_ACCESS_KEY is missing"),
    ],
)
def test_settings_that_cannot_be_used(source: str, environ: dict[str, str], expected: str) -> None:
    with pytest.raises(DownloadError, match=expected):
        settings(source, **environ)


def test_settings_of_every_source_hide_their_secrets() -> None:
    made = settings(
        OCI,
        AISERVICE_REVISION=DIGEST,
        AISERVICE_MODE="verify",
        AWS_ACCESS_KEY_ID="AKIAs3cret",
        AWS_SECRET_ACCESS_KEY="s3cret",
        AWS_SESSION_TOKEN="s3cret",
        DOCKER_AUTH_CONFIG='{"auths": {"ghcr.io": {"auth": "dXNlcjpzM2NyZXQ="}}}',
    )
    assert made.revision == DIGEST
    assert "s3cret" not in repr(made)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"s3": {"bucket": "a/b"}}, "s3.bucket"),
        ({"s3": {"bucket": "models", "endpoint": "s3.corp"}}, "s3.endpoint"),
        ({"oci": {"image": "sdxl"}}, "is no image"),
        ({"oci": {"image": "ghcr.io/sdxl", "path": "../x"}}, "must be a relative path"),
        ({"oci": {"image": "ghcr.io/sdxl"}, "s3": {"bucket": "models"}}, "exactly one"),
    ],
)
def test_sources_that_are_refused(source: dict[str, object], expected: str) -> None:
    with pytest.raises(DownloadError, match=expected):
        parse_source(json.dumps(source))


def test_equal_buckets_and_images_have_one_form() -> None:
    assert parse_source('{"s3": {"bucket": "models", "prefix": "/a/"}}') == parse_source(
        '{"s3": {"bucket": "models", "prefix": "a"}}'
    )
    assert parse_source('{"oci": {"image": "r.io/a", "path": "/models/"}}').to_wire() == {
        "oci": {"image": "r.io/a", "path": "models"}
    }
