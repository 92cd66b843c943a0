"""The volume: what is kept, what is swept away, and how a model becomes visible whole."""

import hashlib
import json
import threading
from pathlib import Path

import pytest

from aiservice_downloader.digests import Digest
from aiservice_downloader.files import FetchedFile, RemoteFile
from aiservice_downloader.paths import MANIFEST_NAME
from aiservice_downloader.source import parse_source
from aiservice_downloader.volume import Volume

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SOURCE = parse_source(json.dumps({"http": {"files": [{"url": "http://m/a", "path": "a", "sha256": SHA256}]}}))


def remote(path: str = "a", sha256: str = SHA256) -> RemoteFile:
    return RemoteFile(path, f"http://m/{path}", Digest("sha256", sha256), access_hint="ask")


def test_a_partial_file_is_of_one_place_and_one_content() -> None:
    assert remote().key == remote().key
    assert len({remote().key, remote("b").key, remote(sha256="b" * 64).key}) == 3


def put(path: Path, content: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_what_nobody_wants_any_more_is_swept_and_the_rest_is_kept(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    keep, other = remote("d/keep"), remote("other")
    put(volume.partial(keep).data)
    put(volume.partial(other).data)
    put(volume.staging / "d/keep")
    put(volume.staging / "d/old/file")
    put(volume.staging / MANIFEST_NAME)
    put(tmp_path / ".replaced/model.bin")
    (volume.staging / "link").symlink_to("/etc")

    volume.sweep([keep])

    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {".partial", f".partial/{keep.key}.data", ".staging", ".staging/d", ".staging/d/keep"}


def test_a_file_where_a_folder_is_wanted_and_the_other_way_round(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    put(volume.staging / "a/b")
    put(volume.staging / "c")
    volume.sweep([remote("a"), remote("c/d")])
    assert list(volume.staging.iterdir()) == []


def stage(volume: Volume, path: str, content: bytes) -> FetchedFile:
    put(volume.staging / path, content)
    return FetchedFile(path, len(content), hashlib.sha256(content).hexdigest())


def test_publishing_writes_the_manifest_and_leaves_nothing_else(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    assert volume.published(SOURCE) is None
    volume.publish(SOURCE, "abc", [stage(volume, "b/c", b"22"), stage(volume, "a", CONTENT)])

    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {
        "model",
        "model/a",
        "model/b",
        "model/b/c",
        f"model/{MANIFEST_NAME}",
    }
    written = json.loads((tmp_path / "model" / MANIFEST_NAME).read_text())
    assert written["version"] == 1
    assert written["source"] == SOURCE.to_wire()
    assert written["revision"] == "abc"
    assert written["files"][0] == {"path": "a", "size": 7, "sha256": SHA256}
    assert written["totalBytes"] == 9
    manifest = volume.published(SOURCE)
    assert manifest is not None
    assert manifest.total_bytes == 9


def test_another_source_a_lost_file_and_a_broken_manifest_are_not_the_published_model(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    volume.publish(SOURCE, None, [stage(volume, "a", CONTENT)])
    other = parse_source(json.dumps({"huggingFace": {"repo": "a/b"}}))
    assert volume.published(other) is None

    (tmp_path / "model/a").write_bytes(b"short")
    assert volume.published(SOURCE) is None
    (tmp_path / "model/a").unlink()
    assert volume.published(SOURCE) is None
    (tmp_path / "model" / MANIFEST_NAME).write_text("{")
    assert volume.published(SOURCE) is None


def test_publishing_replaces_an_older_model_whole(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    volume.publish(SOURCE, None, [stage(volume, "old", b"1"), stage(volume, "a", b"2")])
    volume.publish(SOURCE, None, [stage(volume, "a", CONTENT)])
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [MANIFEST_NAME, "a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_two_processes_never_work_on_one_volume(tmp_path: Path) -> None:
    waited = threading.Event()
    entered = threading.Event()

    def second() -> None:
        with Volume(tmp_path).locked(waited.set):
            entered.set()

    with Volume(tmp_path).locked(lambda: pytest.fail("nobody else is here")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(5)
        assert not entered.is_set()
    assert entered.wait(5)
    thread.join()


def test_a_model_may_be_published_beside_the_volume(tmp_path: Path) -> None:
    folder = tmp_path / "speech-to-text/whisper"
    volume = Volume(tmp_path / ".downloads/whisper", folder)
    put(volume.staging / "a", CONTENT)
    volume.publish(SOURCE, None, [FetchedFile("a", len(CONTENT), SHA256)])
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST_NAME, "a"]
    assert volume.published(SOURCE) is not None
    put(volume.staging / "a", CONTENT)
    volume.publish(SOURCE, None, [FetchedFile("a", len(CONTENT), SHA256)])  # in the place of the first
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST_NAME, "a"]
    assert list(volume.root.iterdir()) == []
