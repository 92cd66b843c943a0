"""The source as the operator hands it over: what is taken, what is refused, and in which words."""

import json

import pytest

from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.paths import check_distinct, check_relative_path
from aiservice_downloader.source import Source, parse_source

DIGEST = "a" * 64


def http(*files: dict[str, str]) -> str:
    return json.dumps({"http": {"files": list(files)}})


def file(path: str = "a.bin", url: str = "https://models.example/a.bin", sha256: str = DIGEST) -> dict[str, str]:
    return {"path": path, "url": url, "sha256": sha256}


def test_both_kinds_of_source_parse() -> None:
    source = parse_source(http(file("ocr/det.onnx")))
    assert source.http is not None
    assert source.http.files[0].path == "ocr/det.onnx"

    hub = parse_source('{"huggingFace": {"repo": "openai/whisper-tiny", "include": ["*.json"]}}').hugging_face
    assert hub is not None
    assert (hub.revision, hub.include, hub.endpoint) == ("main", ("*.json",), None)


def test_equal_sources_have_one_wire_form() -> None:
    one = parse_source('{"huggingFace": {"repo": "a/b"}}')
    other = parse_source('{"huggingFace": {"revision": "main", "exclude": [], "repo": "a/b"}}')
    assert one == other
    assert one.to_wire() == {"huggingFace": {"repo": "a/b", "revision": "main", "include": [], "exclude": []}}
    assert Source.model_validate(one.to_wire()) == one


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "Invalid JSON"),
        ("{}", "exactly one of huggingFace, s3, http and oci"),
        (
            '{"http": {"files": []}, "huggingFace": {"repo": "a/b"}}',
            "http.files: Tuple should have at least 1 item",
        ),
        ('{"huggingFace": {"repo": "whisper"}}', "huggingFace.repo: String should match pattern"),
        ('{"huggingFace": {"repo": "a/../b"}}', "huggingFace.repo"),
        ('{"huggingFace": {"repo": "a/b", "endpoint": "ftp://hub"}}', "huggingFace.endpoint"),
        (http(file(sha256="A" * 64)), "http.files.0.sha256"),
        (http(file(url="file:///etc/passwd")), "http.files.0.url"),
        (http(file(url="https://[::1/a.bin")), "http.files.0.url: Value error, not a URL"),
        (http(file("../model.bin")), "must be a relative path"),
        (http(file("/etc/passwd")), "must be a relative path"),
        (http(file(".aiservice-manifest.json")), "name of the manifest"),
        (http(file("a"), file("a")), "'a' occurs twice"),
        (http(file("a"), file("a/b")), "'a' is both a file and the folder of 'a/b'"),
    ],
)
def test_a_bad_source_is_refused_with_the_field_and_what_is_wrong(text: str, expected: str) -> None:
    with pytest.raises(DownloadError) as caught:
        parse_source(text)
    assert caught.value.reason is Reason.BAD_SOURCE
    assert not caught.value.retryable
    assert expected in caught.value.message
    assert caught.value.message.endswith("Correct the model's spec.")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"pvc": {"claimName": "weights"}}', "pvc"),
        ('{"huggingFace": {"repo": "a/b", "tokenSecretRef": {"name": "hub"}}}', "huggingFace.tokenSecretRef"),
        (http({**file(), "mode": "0644"}), "http.files.0.mode"),
    ],
)
def test_a_field_that_is_not_known_may_say_what_is_wanted_and_is_refused(text: str, field: str) -> None:
    with pytest.raises(DownloadError, match=rf"{field}: Extra inputs are not permitted.*of its version\.$") as caught:
        parse_source(text)
    assert caught.value.reason is Reason.BAD_SOURCE


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "./a",
        "a/.",
        "..",
        "a/../../b",
        "a\\..\\b",
        "a\0b",
        "a\nb",
        "x" * 256,
        "d/" * 200 + "x" * 200,
    ],
)
def test_paths_that_lead_elsewhere_or_cannot_be_written_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"must|too long"):
        check_relative_path(path)


@pytest.mark.parametrize("path", ["a", "a/b/c.bin", ".gitattributes", "..a/b..", "модель.bin", "a b"])
def test_paths_below_the_folder_pass(path: str) -> None:
    assert check_relative_path(path) == path


def test_files_that_do_not_collide_pass() -> None:
    check_distinct(["a/b", "a/c", "ab", "a/d/e"])
