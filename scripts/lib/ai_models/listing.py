"""The list of files and sizes that people see before anything is fetched."""

from __future__ import annotations

from collections.abc import Sequence

from ai_models.stock import Item, State
from aiservice_downloader.units import human_bytes

_COMMIT_DIGITS = 12

Row = tuple[str, str, str]


def table(items: Sequence[Item]) -> str:
    """Every file with its size and what is still to fetch, a total for each part and one for all, in columns."""
    rows: list[Row] = [("FILE", "SIZE", "TO FETCH")]
    for item in items:
        rows += [(line.path, human_bytes(line.size), _amount(line.missing)) for line in item.lines]
        rows.append((_heading(item), human_bytes(item.total), _amount(item.missing)))
        rows.append(("", "", ""))
    rows.append((f"all {_files(items)} files", human_bytes(_total(items)), _amount(_missing(items))))
    return aligned(rows)


def summary(items: Sequence[Item]) -> str:
    """One line for each part, and one for all, in columns."""
    rows: list[Row] = [("FOLDER", "SIZE", "TO FETCH")]
    rows += [(item.place.part.folder, human_bytes(item.total), _amount(item.missing)) for item in items]
    rows.append(("all", human_bytes(_total(items)), _amount(_missing(items))))
    return aligned(rows)


def aligned(rows: Sequence[Row]) -> str:
    """Columns: the first one to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = (
        f"{name:<{widths[0]}}  {size:>{widths[1]}}  {missing:>{widths[2]}}".rstrip() for name, size, missing in rows
    )
    return "\n".join(lines)


def _heading(item: Item) -> str:
    commit = f" at {item.revision[:_COMMIT_DIGITS]}" if item.revision else ""
    state = "" if item.state is State.ABSENT else f", {item.state.value}"
    return f"= {item.place.model.name}: {item.place.part.repo}{commit}{state}"


def _amount(missing: int) -> str:
    return human_bytes(missing) if missing else "-"


def _files(items: Sequence[Item]) -> int:
    return sum(len(item.lines) for item in items)


def _total(items: Sequence[Item]) -> int:
    return sum(item.total for item in items)


def _missing(items: Sequence[Item]) -> int:
    return sum(item.missing for item in items)
