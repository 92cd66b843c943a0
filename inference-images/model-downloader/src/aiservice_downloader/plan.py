"""From a source to the list of what to fetch."""

from __future__ import annotations

from aiservice_downloader.client import HttpClient
from aiservice_downloader.digests import Digest
from aiservice_downloader.fetch_oci import plan_image
from aiservice_downloader.files import Plan, RemoteFile, Unpack
from aiservice_downloader.guard import Guard
from aiservice_downloader.retry import Patience
from aiservice_downloader.settings import Settings
from aiservice_downloader.source import HttpFile, HttpSource


def plan_source(settings: Settings, pinned: str | None, client: HttpClient, patience: Patience, guard: Guard) -> Plan:
    """The files of the source.

    Args:
        settings: The source, and the credentials for it.
        pinned: The commit or digest to take instead of what the source's revision or tag names by now.
        client: For requests.
        patience: With servers.
        guard: For libraries that send requests by themselves.

    Raises:
        DownloadError: If the source cannot be listed.
        StopRequested: If the download is to end.
    """
    source = settings.source
    if source.http is not None:
        return plan_http(source.http)
    if source.oci is not None:
        return plan_image(source.oci, pinned=pinned, logins=settings.registry_logins, client=client, patience=patience)
    # Imported when needed: these libraries take up to a second to load, which the other sources need not pay.
    if source.s3 is not None:
        from aiservice_downloader.fetch_s3 import plan_bucket  # noqa: PLC0415

        return plan_bucket(source.s3, keys=settings.s3_keys, patience=patience, guard=guard)
    assert source.hugging_face is not None  # noqa: S101  Source holds exactly one
    from aiservice_downloader.fetch_hub import plan_repository  # noqa: PLC0415

    return plan_repository(
        source.hugging_face,
        pinned=pinned,
        token=settings.token,
        patience=patience,
        guard=guard,
        advice=settings.advice,
    )


def plan_http(source: HttpSource) -> Plan:
    """The files of an HTTP source; their sizes are known to the servers only."""
    files = tuple(_http_file(file) for file in source.files)
    unpacks = tuple(
        Unpack((remote,), into=file.path) for file, remote in zip(source.files, files, strict=True) if file.unpack
    )
    return Plan(files, unpacks=unpacks)


def _http_file(file: HttpFile) -> RemoteFile:
    return RemoteFile(
        file.path,
        file.url,
        Digest("sha256", file.sha256),
        access_hint=(
            "the file needs credentials that a ModelCache cannot give; use an address that holds them (a signed URL), "
            "or one that is open to the cluster"
        ),
        packed=file.unpack,
    )
