"""The Hub's chunk protocol: the real library on a storage of its own on disk, as the downloader uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hf_xet  # type: ignore[import-untyped]  # it has no types
import pytest

from aiservice_downloader.client import HttpClient
from aiservice_downloader.digests import Digest
from aiservice_downloader.errors import StreamError
from aiservice_downloader.fetch_http import Fetcher
from aiservice_downloader.fetch_xet import XetStreams, xet_serves
from aiservice_downloader.files import RemoteFile
from aiservice_downloader.guard import AllowedHosts, Guard
from aiservice_downloader.progress import Progress, Stop
from aiservice_downloader.retry import Backoff, Patience
from aiservice_downloader.space import Space
from aiservice_downloader.volume import Volume
from support.downloads import content, sha256
from support.file_server import FileServer, serving

DATA = content(3 << 20)


@dataclass(frozen=True)
class Data:
    file_hash: str
    refresh_route: str = "route"


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> tuple[XetStreams, Data]:
    endpoint = f"local://{tmp_path_factory.mktemp('storage')}/cas"
    session = hf_xet.XetSession()
    with session.new_upload_commit(endpoint=endpoint) as commit:
        upload = commit.start_upload_bytes(DATA, name="model")

    class LocalStreams(XetStreams):
        """The storage is found without asking the Hub."""

        def connect(self, refresh_route: str) -> Any:
            assert refresh_route == "route"
            return hf_xet.XetSession().new_download_stream_group(endpoint=endpoint)

    return LocalStreams({}), Data(upload.result().xet_info.hash)


def test_a_file_is_streamed_from_any_offset(streams: tuple[XetStreams, Data]) -> None:
    xet, data = streams
    assert b"".join(xet.open(data, len(DATA), 0)) == DATA
    assert b"".join(xet.open(data, len(DATA), 1_000_001)) == DATA[1_000_001:]


def test_what_the_storage_does_not_have_is_an_error_of_ours(streams: tuple[XetStreams, Data]) -> None:
    xet, _ = streams
    with pytest.raises(StreamError, match="does not have the file"):
        list(xet.open(None, 100, 0))
    with pytest.raises(StreamError, match="failed") as caught:
        list(xet.open(Data("no hash of the storage"), 100, 0))
    assert "no hash" not in str(caught.value)  # what the library says may hold addresses with signatures


@contextmanager
def fetching(root: Path, progress: Progress) -> Iterator[Fetcher]:
    client, stop = HttpClient(Guard(AllowedHosts())), Stop()
    patience = Patience(Backoff(attempts=3, first=0.0), stop, progress)
    try:
        yield Fetcher(client, Volume(root), progress, patience, stop, Space(root, None))
    finally:
        client.close()


def test_a_download_goes_on_in_the_stream_where_it_was(streams: tuple[XetStreams, Data], tmp_path: Path) -> None:
    xet, data = streams
    digest = Digest("sha256", sha256(DATA))
    file = RemoteFile(
        "model",
        "http://nobody.invalid/model",
        digest,
        "",
        len(DATA),
        stream=lambda start: xet.open(data, len(DATA), start),
    )
    progress = Progress(lambda: 0.0)
    progress.plan([file], lambda _: 0)
    with fetching(tmp_path, progress) as made:
        with made.volume.partial(file).open(start_over=True, validator=None) as output:
            output.write(DATA[:2_000_000])
        assert made.obtain(file).sha256 == sha256(DATA)
    assert progress.received_bytes == len(DATA) - 2_000_000


def test_a_stream_that_breaks_is_gone_on_with_over_http(tmp_path: Path) -> None:
    def breaking(start: int) -> Iterator[bytes]:
        yield DATA[start : start + 1_000_000]
        raise StreamError("The Hub's chunk storage failed")

    with serving(FileServer()) as server:
        url = server.add("/model", DATA)
        file = RemoteFile("model", url, Digest("sha256", sha256(DATA)), "", len(DATA), stream=breaking)
        progress = Progress(lambda: 0.0)
        progress.plan([file], lambda _: 0)
        with fetching(tmp_path, progress) as made:
            assert made.obtain(file).size == len(DATA)
        assert server.gets("/model")[0].header("Range") == "bytes=1000000-"
    assert progress.received_bytes == len(DATA)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("https://huggingface.co", True),
        ("https://huggingface.co/", True),
        ("http://huggingface.co", False),
        ("https://mirror.corp", False),
        ("https://huggingface.co.evil.example", False),
    ],
)
def test_only_the_public_hub_is_served_by_it(endpoint: str, expected: bool) -> None:
    assert xet_serves(endpoint) is expected


def test_a_storage_that_cannot_be_reached_is_given_up_soon() -> None:
    with serving(FileServer()) as gone:
        pass
    with pytest.raises(StreamError, match="ConnectionError"):
        list(XetStreams({}).open(Data("a" * 64, f"{gone.url}/token"), 100, 0))
