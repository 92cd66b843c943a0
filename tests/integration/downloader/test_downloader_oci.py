"""Images and artifacts from a real registry: layers, logins, resume; and a registry's ways to say no."""

from __future__ import annotations

import gzip
import json
import signal
import tarfile
import uuid
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from support.downloads import Job, assert_published, content, first_note, sha256, wait_until
from support.file_server import Answer, FileServer
from support.registry_server import (
    PASSWORD,
    TAR_GZIP,
    TITLE,
    UNPACK,
    USER,
    Layer,
    RegistryServer,
    file_layer,
    image_layer,
    registry_with_password,
    registry_with_tokens,
    symlink,
    tar,
)
from support.relay import relaying

FILES = {"config.json": b'{"a": 1}', "weights/model.safetensors": content(2 << 20)}


@pytest.fixture
def repository() -> str:
    return f"team/model-{uuid.uuid4().hex}"


def source_of(host: str, repository: str, reference: str = ":v1", path: str = "") -> dict[str, Any]:
    return {"oci": {"image": f"{host}/{repository}{reference}", "path": path}}


def test_an_artifact_of_files_is_published_at_the_digest_of_its_tag(
    job: Job, registry: RegistryServer, repository: str
) -> None:
    digest = registry.push(repository, "v1", [file_layer(path, data) for path, data in FILES.items()])
    source = source_of(registry.host, repository)
    outcome = job.run(source)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.message["revision"] == digest
    assert outcome.message["fetchedBytes"] == outcome.message["bytes"] == sum(len(data) for data in FILES.values())
    assert assert_published(job, FILES)["revision"] == digest

    registry.push(repository, "v1", [file_layer("other", b"x")])
    second = job.run(source)
    assert (second.message["revision"], second.message["fetchedBytes"]) == (digest, 0)


def test_a_digest_and_a_pinned_revision_hold_against_a_tag_that_moved(
    job: Job, registry: RegistryServer, repository: str
) -> None:
    digest = registry.push(repository, "v1", [file_layer("a", b"first")])
    registry.push(repository, "v1", [file_layer("a", b"second")])
    job.environ["AISERVICE_REVISION"] = digest
    assert job.run(source_of(registry.host, repository)).message["revision"] == digest
    assert_published(job, {"a": b"first"})
    del job.environ["AISERVICE_REVISION"]
    assert job.run(source_of(registry.host, repository, f"@{digest}")).message["revision"] == digest


def test_layers_of_an_image_go_over_each_other_and_whiteouts_delete(
    job: Job, registry: RegistryServer, repository: str
) -> None:
    layers = [
        image_layer({"etc/passwd": b"root", "models/old.bin": b"1", "models/keep.bin": b"2", "models/sub/x": b"3"}),
        image_layer({"models/.wh.old.bin": b"", "models/sub/.wh..wh..opq": b"", "models/sub/y": b"4"}),
        image_layer({"models/keep.bin": b"22", "models/new/deep.bin": content(100_000)}),
    ]
    registry.push(repository, "v1", layers)
    outcome = job.run(source_of(registry.host, repository, path="models"))
    assert (outcome.code, outcome.stderr) == (0, "")
    assert_published(job, {"keep.bin": b"22", "sub/y": b"4", "new/deep.bin": content(100_000)})


def test_links_inside_an_image_become_files_and_others_do_not_matter(
    job: Job, registry: RegistryServer, repository: str
) -> None:
    layers = [
        image_layer({"blobs/abc": b"weights"}),
        image_layer([symlink("models/model.bin", "../blobs/abc"), symlink("bin", "/usr/bin")]),
        image_layer([symlink("models/again.bin", "models/model.bin", tarfile.LNKTYPE)]),
    ]
    registry.push(repository, "v1", layers)
    assert job.run(source_of(registry.host, repository, path="models")).code == 0
    assert_published(job, {"model.bin": b"weights", "again.bin": b"weights"})


def test_a_packed_folder_of_an_artifact_is_unpacked(job: Job, registry: RegistryServer, repository: str) -> None:
    packed = gzip.compress(tar({"weights": None, "weights/a": b"1", "weights/b/c": b"2"}))
    layer = Layer(packed, TAR_GZIP, {TITLE: "weights", UNPACK: "true"})
    registry.push(repository, "v1", [layer, file_layer("config.json", b"{}")])
    assert job.run(source_of(registry.host, repository)).code == 0
    assert_published(job, {"weights/a": b"1", "weights/b/c": b"2", "config.json": b"{}"})


def test_a_path_may_be_in_some_of_the_packed_folders_only(job: Job, registry: RegistryServer, repository: str) -> None:
    def folder(name: str) -> Layer:
        packed = gzip.compress(tar({name: None, f"{name}/a": name.encode()}))
        return Layer(packed, TAR_GZIP, {TITLE: name, UNPACK: "true"})

    registry.push(repository, "v1", [folder("docs"), folder("weights"), folder("licences")])
    assert job.run(source_of(registry.host, repository, path="weights")).code == 0
    assert_published(job, {"a": b"weights"})
    outcome = job.run(source_of(registry.host, repository, path="elsewhere"))
    assert outcome.failure == (2, "NotFound", False)
    assert "docs (1 of 3) and 2 more hold no files below 'elsewhere'" in outcome.message["message"]
    registry.push(repository, "v2", [folder("docs"), file_layer("weights/b", b"1")])
    assert job.run(source_of(registry.host, repository, ":v2", path="weights")).code == 0
    assert_published(job, {"b": b"1"})


def test_the_platform_of_the_cluster_is_taken_from_an_index(
    job: Job, registry: RegistryServer, repository: str
) -> None:
    amd = registry.push(repository, "amd", [file_layer("a", b"amd64")])
    arm = registry.push(repository, "arm", [file_layer("a", b"arm64")])
    index = registry.push_index(repository, "v1", {"linux/arm64": arm, "linux/amd64": amd})
    assert job.run(source_of(registry.host, repository)).message["revision"] == index
    assert_published(job, {"a": b"amd64"})

    registry.push_index(repository, "arm-only", {"linux/arm64": arm})
    outcome = job.run(source_of(registry.host, repository, ":arm-only"))
    assert outcome.failure == (2, "NotFound", False)
    assert "linux/arm64" in outcome.message["message"]


def test_a_layer_killed_in_the_middle_goes_on_where_it_was(job: Job, registry: RegistryServer, repository: str) -> None:
    files = {"model.bin": content(10 << 20)}
    layer = image_layer(files)
    registry.push(repository, "v1", [layer])
    with relaying(registry.port) as relay:
        source = source_of(f"127.0.0.1:{relay.port}", repository)
        relay.bytes_per_second = 8 << 20
        process = job.start(source)
        wait_until(lambda: job.bytes_on_volume() > 4 << 20, "for four MiB on the volume")
        process.send_signal(signal.SIGKILL)
        job.finish(process)
        kept = job.bytes_on_volume()
        relay.bytes_per_second = None
        outcome = job.run(source)
        assert outcome.code == 0
        assert outcome.message["fetchedBytes"] == len(layer.data) - kept
        assert relay.sent - len(layer.data) < kept
    assert_published(job, files)


def test_complete_layers_are_not_fetched_again_when_unpacking_was_killed(
    job: Job, registry: RegistryServer, repository: str
) -> None:
    files = {"a.bin": content(1 << 20), "b.bin": b"2"}
    digest = registry.push(repository, "v1", [image_layer(files)])
    source = source_of(registry.host, repository)
    job.environ["AISERVICE_CAPACITY_BYTES"] = str((1 << 20) + 300_000)  # the layer alone fits
    outcome = job.run(source)
    assert outcome.failure == (2, "OutOfSpace", False)
    assert outcome.message["revision"] == digest  # so that the next attempt can go on with the same
    required = outcome.message["requiredBytes"]
    assert required > 2 << 20
    job.environ["AISERVICE_CAPACITY_BYTES"] = str(required)  # as the operator lets the volume grow
    outcome = job.run(source)
    assert (outcome.code, outcome.message["fetchedBytes"]) == (0, 0)
    assert_published(job, files)


def test_a_registry_with_passwords(job: Job, tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    with registry_with_password(tmp_path / "registry") as registry:
        registry.push("team/model", "v1", [file_layer("a", b"1")])
        source = source_of(registry.host, "team/model")
        outcome = job.run(source)
        assert outcome.failure == (2, "Unauthorized", False)
        assert "name a Secret of type kubernetes.io/dockerconfigjson" in outcome.message["message"]

        job.environ["DOCKER_AUTH_CONFIG"] = logins({registry.host: {"username": USER, "password": "wrong"}})
        outcome = job.run(source)
        assert outcome.failure == (2, "Unauthorized", False)
        assert "the login for 127.0.0.1" in outcome.message["message"]

        auth = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        job.environ["DOCKER_AUTH_CONFIG"] = logins({f"http://{registry.host}/v2/": {"auth": auth}})
        outcome = job.run(source)
    assert outcome.code == 0
    assert_published(job, {"a": b"1"})
    assert PASSWORD not in json.dumps(outcome.lines) + json.dumps(outcome.message) + outcome.stderr


def logins(auths: dict[str, dict[str, str]]) -> str:
    return json.dumps({"auths": auths})


def test_a_registry_with_tokens(job: Job, tmp_path: Path) -> None:
    with registry_with_tokens(tmp_path) as (registry, tokens):
        registry.push("team/model", "v1", [file_layer(path, data) for path, data in FILES.items()])
        source = source_of(registry.host, "team/model")
        assert job.run(source).failure == (2, "Unauthorized", False)
        assert len(tokens.requests) == 1

        job.environ["DOCKER_AUTH_CONFIG"] = logins({registry.host: {"username": USER, "password": PASSWORD}})
        assert job.run(source).code == 0
        assert len(tokens.requests) == 2  # one token for all requests
        assert_published(job, FILES)

        login = {"identitytoken": PASSWORD}
        job.environ["DOCKER_AUTH_CONFIG"] = logins({f"{registry.host}/team": login})
        registry.push("team/model", "v1", [file_layer("a", b"1")])
        job.model.rename(job.root / "gone")
        assert job.run(source).code == 0
        assert tokens.requests[-1].method == "POST"
        assert_published(job, {"a": b"1"})


@pytest.mark.parametrize(
    ("repository", "reference", "path", "failure", "words"),
    [
        ("team/none", ":v1", "", (2, "NotFound", False), "404 Not Found"),
        ("team/known", ":none", "", (2, "NotFound", False), "/manifests/none"),
        ("team/known", "@sha256:" + "0" * 64, "", (2, "NotFound", False), "correct the address"),
        ("team/known", ":v1", "elsewhere", (2, "NotFound", False), "below 'elsewhere'"),
        ("team/known", ":nameless", "", (2, "BadSource", False), TITLE),
        ("team/known", ":escape", "", (2, "BadSource", False), "must be a relative path"),
        ("team/known", ":twice", "", (2, "BadSource", False), "'a' occurs twice"),
        ("team/known", ":broken", "", (2, "BadSource", False), "cannot be unpacked"),
        ("team/known", ":device", "", (2, "BadSource", False), "is a device or a pipe"),
        ("Team/Known", ":v1", "", (2, "BadSource", False), "is no image"),
    ],
)
def test_what_will_not_change_ends_it_at_once(
    job: Job, registry: RegistryServer, *, repository: str, reference: str, path: str, failure: object, words: str
) -> None:
    device = symlink("dev/null", "", tarfile.CHRTYPE)
    for tag, layers in {
        "v1": [image_layer({"models/a": b"1"})],
        "nameless": [Layer(b"GGUF", "application/vnd.example.weights")],
        "escape": [file_layer("../../etc/passwd", b"1")],
        "twice": [file_layer("a", b"1"), file_layer("a", b"2")],
        "broken": [Layer(gzip.compress(b"no tar at all" * 100))],
        "device": [image_layer([device])],
    }.items():
        registry.push("team/known", tag, layers)
    outcome = job.run(source_of(registry.host, repository, reference, path))
    assert outcome.failure == failure
    assert words in outcome.message["message"]
    assert not job.model.exists()


def test_a_registry_that_gives_something_else_for_a_digest_is_caught(job: Job, server: FileServer) -> None:
    layer = b"weights"
    manifest = {
        "schemaVersion": 2,
        "layers": [
            {"mediaType": "x", "digest": f"sha256:{sha256(layer)}", "size": len(layer), "annotations": {TITLE: "a"}}
        ],
    }
    body = json.dumps(manifest).encode()
    server.add("/v2/team/model/manifests/v1", body)
    server.add(f"/v2/team/model/manifests/sha256:{'0' * 64}", body)
    server.add(f"/v2/team/model/blobs/sha256:{sha256(layer)}", b"wEights")
    host = f"127.0.0.1:{server.port}"
    outcome = job.run(source_of(host, "team/model", f"@sha256:{'0' * 64}"))
    assert outcome.failure == (2, "ChecksumMismatch", False)
    outcome = job.run(source_of(host, "team/model"))
    assert outcome.failure == (2, "ChecksumMismatch", False)
    assert "a from" in outcome.message["message"]


def test_a_server_that_is_no_registry_is_told(job: Job, server: FileServer) -> None:
    server.add("/v2/team/model/manifests/v1", b"<html>Welcome</html>")
    outcome = job.run(source_of(f"127.0.0.1:{server.port}", "team/model"))
    assert outcome.failure == (2, "BadSource", False)
    assert "is one of a registry" in outcome.message["message"]


def test_a_busy_registry_and_nobody_there(job: Job, server: FileServer) -> None:
    server.faults["/v2/team/model/manifests/v1"] = [Answer(503)] * 9
    assert "503 Service Unavailable" in first_note(job, source_of(f"127.0.0.1:{server.port}", "team/model"))
    with relaying(1) as gone:
        pass
    assert "[Errno 111]" in first_note(job, source_of(f"127.0.0.1:{gone.port}", "team/model"))
