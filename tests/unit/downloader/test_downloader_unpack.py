"""Archives onto a volume: what is written of them."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from aiservice_downloader.digests import Digest
from aiservice_downloader.files import Plan, RemoteFile, Unpack
from aiservice_downloader.progress import Progress, Stop
from aiservice_downloader.space import Space
from aiservice_downloader.unpack import Unpacker
from aiservice_downloader.volume import Volume


def remote(path: str, *, packed: bool = False) -> RemoteFile:
    return RemoteFile(path, f"http://m/{path}", Digest("sha256", "0" * 64), access_hint="ask", packed=packed)


def test_only_the_files_that_are_wanted_are_written_and_counted(tmp_path: Path) -> None:
    volume, archive = Volume(tmp_path), remote("model", packed=True)
    volume.archives.mkdir()
    with tarfile.open(volume.staged(archive), "w") as packed:
        for name, size in (("large", 1 << 20), ("small", 5)):
            header = tarfile.TarInfo(name)
            header.size = size
            packed.addfile(header, BytesIO(bytes(size)))
    roomy = Space(tmp_path, None, lambda _: 2 << 20)
    unpacker = Unpacker(volume, Progress(lambda: 0.0), Stop(), roomy)
    work = Unpack((archive,), into="model", only=frozenset({"model/small", "elsewhere"}))
    assert [file.path for file in unpacker.unpack_all([work], frozenset())] == ["model/small"]
    assert [path.name for path in volume.staging.rglob("*") if path.is_file()] == ["small"]
    narrow = replace(unpacker, space=Space(tmp_path, None, lambda _: (1 << 20) + 5))
    assert narrow.unpack_all([work], frozenset())


def test_the_part_of_a_plan_holds_what_some_files_come_from_and_what_they_come_to() -> None:
    first, second = remote("first", packed=True), replace(remote("second", packed=True), digest=Digest("sha256", "1"))
    unpacks = (Unpack((first,), into="first"), Unpack((second,), into="second"))
    plan = Plan((remote("a"), remote("b"), first, second), "c0ffee", unpacks)
    part = plan.part_for({"b": 7, "second/x": 5, "second/y": 6})
    assert part == Plan(
        (remote("b"), second),
        "c0ffee",
        (replace(unpacks[1], only=frozenset({"second/x", "second/y"})),),
        unpacked_bytes=11,
    )
