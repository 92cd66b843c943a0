"""What the Job's container tells this process through its environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from aiservice_downloader.advice import FOR_MANIFESTS, Advice
from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.guard import (
    AllowedHosts,
    Denied,
    api_server,
    parse_allowed_hosts,
    parse_denied_networks,
    proxy_hosts,
)
from aiservice_downloader.registry_login import RegistryLogins, parse_logins
from aiservice_downloader.source import Source, parse_source

DEFAULT_TERMINATION_LOG = Path("/dev/termination-log")


class Mode(StrEnum):
    """What this process is started for."""

    DOWNLOAD = "download"
    """Have the model published on the volume."""
    MEASURE = "measure"
    """Tell how large the model is; no volume is needed."""
    VERIFY = "verify"
    """Hash what is published and mend what is not as it was."""


@dataclass(frozen=True)
class S3Keys:
    """Credentials for requests to S3."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Settings:
    """What to do: where from, where to, and within which limits."""

    source: Source
    cache_dir: Path
    """The volume; without a meaning in measure mode."""
    mode: Mode = Mode.DOWNLOAD
    revision: str | None = None
    """The commit or digest to take, instead of what the source's revision or tag names by now."""
    capacity_bytes: int | None = None
    """Size of the volume as it was asked for; a volume that is a folder of a larger disk cannot tell it itself."""
    allowed_hosts: AllowedHosts = field(default_factory=AllowedHosts)
    denied: tuple[Denied, ...] = ()
    proxies: frozenset[str] = frozenset()
    token: str | None = field(default=None, repr=False)
    """For the Hugging Face Hub."""
    s3_keys: S3Keys | None = None
    registry_logins: RegistryLogins = field(default_factory=RegistryLogins)
    model_dir: Path | None = None
    """Where the model is published: a folder of the volume's file system; None: `model` on the volume."""
    advice: Advice = FOR_MANIFESTS
    """What messages tell people to do."""


def termination_log(environ: Mapping[str, str]) -> Path:
    """The file whose content Kubernetes shows as the container's termination message."""
    return Path(environ["TERMINATION_LOG"]) if environ.get("TERMINATION_LOG") else DEFAULT_TERMINATION_LOG


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Reads the settings.

    Raises:
        DownloadError: BadSource, if a variable is missing or malformed.
    """
    source = parse_source(_required(environ, "AISERVICE_SOURCE"))
    mode = _mode(environ.get("AISERVICE_MODE", ""))
    return Settings(
        source=source,
        cache_dir=Path() if mode is Mode.MEASURE else Path(_required(environ, "AISERVICE_CACHE_DIR")),
        mode=mode,
        revision=_revision(environ.get("AISERVICE_REVISION", ""), source),
        capacity_bytes=_capacity(environ.get("AISERVICE_CAPACITY_BYTES", "")),
        allowed_hosts=_allowed_hosts(environ.get("AISERVICE_ALLOWED_HOSTS", "")),
        denied=(*api_server(environ), *_denied_networks(environ.get("AISERVICE_DENIED_NETWORKS", ""))),
        proxies=proxy_hosts(environ),
        token=environ.get("HF_TOKEN", "").strip() or None,
        s3_keys=_s3_keys(environ),
        registry_logins=_logins(environ.get("DOCKER_AUTH_CONFIG", "")),
    )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise _bad(f"{name} is not set; --help says what it holds.")
    return value


def _mode(text: str) -> Mode:
    try:
        return Mode(text) if text else Mode.DOWNLOAD
    except ValueError:
        raise _bad(f"AISERVICE_MODE is {text!r}: give one of {', '.join(Mode)}.") from None


def _revision(text: str, source: Source) -> str | None:
    if not text:
        return None
    if source.hugging_face is None and source.oci is None:
        raise _bad("AISERVICE_REVISION is set, and only huggingFace and oci sources have revisions: leave it out.")
    pattern, form = (r"[0-9a-f]{40}", "a commit") if source.oci is None else (r"sha256:[0-9a-f]{64}", "a sha256 digest")
    if re.fullmatch(pattern, text) is None:
        raise _bad(f"AISERVICE_REVISION is {text!r}: give {form} in full, as an earlier download told it.")
    return text


def _capacity(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise _bad(f"AISERVICE_CAPACITY_BYTES is {text!r}: give a number of bytes.")
    return int(text)


def _allowed_hosts(text: str) -> AllowedHosts:
    try:
        return parse_allowed_hosts(text) if text else AllowedHosts()
    except ValueError as error:
        raise _bad(
            f"AISERVICE_ALLOWED_HOSTS cannot be used: {error}. Correct the operator's download.allowedHosts."
        ) from error


def _denied_networks(text: str) -> tuple[Denied, ...]:
    try:
        return parse_denied_networks(text) if text else ()
    except ValueError as error:
        raise _bad(
            f"AISERVICE_DENIED_NETWORKS cannot be used: {error}. Correct the operator's download.deniedNetworks."
        ) from error


def _s3_keys(environ: Mapping[str, str]) -> S3Keys | None:
    access_key = environ.get("AWS_ACCESS_KEY_ID", "").strip()
    secret_key = environ.get("AWS_SECRET_ACCESS_KEY", "").strip()
    if bool(access_key) != bool(secret_key):
        missing = "AWS_SECRET_ACCESS_KEY" if access_key else "AWS_ACCESS_KEY_ID"
        raise _bad(f"{missing} is missing or empty: the Secret with S3 credentials must hold both keys.")
    if not access_key:
        return None
    return S3Keys(access_key, secret_key, environ.get("AWS_SESSION_TOKEN", "").strip() or None)


def _logins(text: str) -> RegistryLogins:
    try:
        return parse_logins(text) if text else RegistryLogins()
    except ValueError as error:
        raise _bad(
            f"DOCKER_AUTH_CONFIG cannot be used: {error}. Make the Secret with kubectl create secret docker-registry."
        ) from error


def _bad(message: str) -> DownloadError:
    return DownloadError(Reason.BAD_SOURCE, message)
