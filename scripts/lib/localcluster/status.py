"""What runs and what does not, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster.layout import Layout
from localcluster.processes import Component, main_process


@dataclass(frozen=True)
class Line:
    """The state of one part of a cluster."""

    name: str
    pid: int | None
    healthy: bool
    state: str
    log: Path | None = None


def component_line(layout: Layout, component: Component) -> Line:
    """The state of a component's process: whether it runs, and whether it answers."""
    pid = main_process(layout, component.name)
    log = layout.log(component.name)
    if pid is None:
        return Line(component.name, None, healthy=False, state="stopped", log=log)
    if not component.ready():
        return Line(component.name, pid, healthy=False, state="does not answer", log=log)
    return Line(component.name, pid, healthy=True, state="running", log=log)


def table(lines: Sequence[Line]) -> str:
    """The lines under a heading, in columns."""
    rows = [("COMPONENT", "PID", "STATE", "LOG")]
    rows += [(line.name, str(line.pid or "-"), line.state, str(line.log or "-")) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    )
