"""What every benchmark says besides its figures, and how it is printed and kept."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, Any]:
    """Facts that figures depend on. `load_1m` above 0 means that something else was busy when the run began."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "cpu": models[0].partition(": ")[2] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 1),
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: a value that was seen, never one between two. Of 30 values, p99 is the largest."""
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def family(pid: int) -> list[int]:
    """A process and all that it started, as far as they live."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []
    return [pid, *(member for child in children for member in family(child))]


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used so far, to 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_memory_mib(pid: int) -> float:
    """The most memory that a process has had resident so far."""
    return _memory_mib(pid, "VmHWM:")


def memory_mib(pid: int) -> float:
    """The memory that a process has resident now."""
    return _memory_mib(pid, "VmRSS:")


def _memory_mib(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [found] = [line for line in lines if line.startswith(field)]
    return int(found.split()[1]) / 1024


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up; the first is text, the others are figures."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def draw(line: Sequence[str]) -> str:
        first, *others = zip(line, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([draw(header), draw(rule), *map(draw, rows)])


def publish(title: str, method: str, tables: Sequence[str], document: Mapping[str, Any], output: Path | None) -> None:
    """Prints a benchmark's result, and keeps it as JSON.

    Args:
        title: What was measured.
        method: How, in one paragraph.
        tables: As `table` makes them.
        document: The figures, for programs; `machine` in it is what `machine()` said when the run began.
        output: The file for the JSON; None keeps nothing.
    """
    facts = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
    print("\n\n".join([title, f"machine: {facts}", f"method: {method}", *tables]), flush=True)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps({"title": title, "method": method, **document}, indent=2) + "\n")
        print(f"\nkept in {output}")
