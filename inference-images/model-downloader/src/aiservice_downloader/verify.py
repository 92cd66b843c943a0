"""Looks whether what is published is still what was published, and mends it."""

from __future__ import annotations

from functools import partial

from aiservice_downloader.digests import Digest, Hasher, hash_file
from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.files import FetchedFile
from aiservice_downloader.volume import Manifest, ManifestFile, file_size
from aiservice_downloader.work import Work

_SHOWN_PATHS = 5


def mend(work: Work, manifest: Manifest) -> tuple[str, ...]:
    """Hashes every published file, and fetches again what is missing or changed; returns the paths of those.

    A mended file takes the place of the broken one in one step. The manifest stays as it is: what it says is true
    again when this returns. A broken file stays where it is until then, also where there is no room for both: most of
    it may be readable, and a pod that has it loaded must not lose it for a replacement that may never come.

    Raises:
        DownloadError: ChecksumMismatch, naming the files that are broken and could not be mended, whatever stood in
            the way: who serves from them has to know. With too little room, it tells how much is needed.
        StopRequested: If the run is to end.
    """
    whole = work.workers.run(partial(_is_whole, work, file) for file in manifest.files)
    broken = [file for file, good in zip(manifest.files, whole, strict=True) if not good]
    if not broken:
        return ()
    paths = tuple(file.path for file in broken)
    try:
        plan = work.plan(manifest.revision).part_for({file.path: file.size for file in broken})
        _check_same(broken, work.obtain(plan))
        work.volume.mend(paths)
    except (DownloadError, OSError) as error:
        cause = error if isinstance(error, DownloadError) else work.space.explain(error)
        raise DownloadError(
            Reason.CHECKSUM_MISMATCH,
            f"{shown_paths(paths)} on the volume {'is' if len(paths) == 1 else 'are'} missing or not what was "
            f"published, and could not be fetched again ({cause.reason}): {cause.message}",
            required_bytes=cause.required_bytes,
            retryable=cause.retryable,
        ) from error
    return paths


def shown_paths(paths: tuple[str, ...]) -> str:
    """Some paths for a message."""
    more = len(paths) - _SHOWN_PATHS
    return ", ".join(paths[:_SHOWN_PATHS]) + (f" and {more} more files" if more > 0 else "")


def _is_whole(work: Work, file: ManifestFile) -> bool:
    path = work.volume.model / file.path
    work.progress.note(f"verifying {file.path}")
    if file_size(path) != file.size:
        return False
    hasher = Hasher(Digest("sha256", file.sha256), file.size)
    try:
        hash_file(path, hasher, work.stop.check)
    except OSError:
        return False  # a block that cannot be read is lost as well
    return hasher.matches()


def _check_same(broken: list[ManifestFile], fetched: list[FetchedFile]) -> None:
    found = {file.path: file for file in fetched}
    other = [file.path for file in broken if file.path not in found or found[file.path].sha256 != file.sha256]
    if other:
        raise DownloadError(
            Reason.CHECKSUM_MISMATCH,
            f"the source no longer gives what was published for {shown_paths(tuple(other))}. Delete the ModelCache to "
            "have what the source gives now, or restore the source.",
        )
