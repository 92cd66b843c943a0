"""What the Job's container tells this process through its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.source import Source, parse_source

DEFAULT_TERMINATION_LOG = Path("/dev/termination-log")


@dataclass(frozen=True)
class Settings:
    """Where from, where to, and within which limits."""

    source: Source
    cache_dir: Path
    capacity_bytes: int | None = None
    """Size of the volume as it was asked for; a volume that is a folder of a larger disk cannot tell it itself."""
    token: str | None = field(default=None, repr=False)


def termination_log(environ: Mapping[str, str]) -> Path:
    """The file whose content Kubernetes shows as the container's termination message."""
    return Path(environ["TERMINATION_LOG"]) if environ.get("TERMINATION_LOG") else DEFAULT_TERMINATION_LOG


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Reads the settings.

    Raises:
        DownloadError: BadSource, if a variable is missing or malformed.
    """
    return Settings(
        source=parse_source(_required(environ, "AISERVICE_SOURCE")),
        cache_dir=Path(_required(environ, "AISERVICE_CACHE_DIR")),
        capacity_bytes=_capacity(environ.get("AISERVICE_CAPACITY_BYTES", "")),
        token=environ.get("HF_TOKEN", "").strip() or None,
    )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise DownloadError(Reason.BAD_SOURCE, f"{name} is not set; --help says what it holds.")
    return value


def _capacity(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise DownloadError(Reason.BAD_SOURCE, f"AISERVICE_CAPACITY_BYTES is {text!r}: give a number of bytes.")
    return int(text)
