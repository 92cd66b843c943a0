"""The parts of an image's start, as the service itself tells them in its log record `ready`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.figures import Spread, spread
from bench.report import table
from bench.serving import service

STARTS = 3
PARTS = {
    "import_seconds": "import of the libraries",
    "load_seconds": "load",
    "warm_up_seconds": "warm-up",
    "total_seconds": "to ready, since the process began",
}

METHOD = (
    f"Cold start: {STARTS} starts of the service's process, one after the other, with the files in the page cache "
    "and byte code compiled, as in an image; median (lowest-highest) of what it says in its log record `ready`. "
    "Pulling the image comes before."
)


def starts(module: str, task: str, folder: Path, **settings: Any) -> dict[str, Spread]:
    """Starts a service some times and returns its parts."""
    seen: list[Mapping[str, Any]] = []
    for number in range(STARTS + 1):
        with service("start", module, task, folder / f"start-{number}", **settings) as server:
            seen.append(server.ready)
    # The first one read the files from the disk.
    return {part: spread([float(record[part]) for record in seen[1:]]) for part in PARTS}


def drawn(found: Mapping[str, Mapping[str, Spread]]) -> str:
    """A table with a column for each model."""
    return table(
        ["seconds", *found],
        [[label, *(parts[part].shown(2) for parts in found.values())] for part, label in PARTS.items()],
    )


def kept(found: Mapping[str, Mapping[str, Spread]]) -> dict[str, dict[str, Sequence[float]]]:
    """The same for programs: median, lowest, highest."""
    return {
        name: {part: [parts[part].median, parts[part].low, parts[part].high] for part in PARTS}
        for name, parts in found.items()
    }
