"""Command line: `python -m chartdocs [--check]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from chartdocs.readme import with_values
from chartdocs.schema import render
from chartdocs.values import ValuesError, load

_CHARTS = Path(__file__).resolve().parents[3] / "charts"


def outputs(chart: Path) -> dict[Path, str]:
    """Returns the generated files of a chart and what they should contain.

    Raises:
        ValuesError: `values.yaml` lacks a comment, or one cannot be read.
    """
    entries = load(chart / "values.yaml")
    readme = chart / "README.md"
    return {
        chart / "values.schema.json": render(chart.name, entries),
        readme: with_values(readme.read_text(), entries),
    }


def main() -> int:
    """Writes or checks the files of all charts."""
    parser = argparse.ArgumentParser(prog="chartdocs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a file is stale")
    check = parser.parse_args().check
    try:
        wanted = {
            path: text
            for values in sorted(_CHARTS.glob("*/values.yaml"))
            for path, text in outputs(values.parent).items()
        }
    except ValuesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"stale: {path.relative_to(_CHARTS.parent)} (run `make generate`)", file=sys.stderr)
        else:
            path.write_text(wanted[path])
            print(f"wrote {path.relative_to(_CHARTS.parent)}")
    return 1 if check and stale else 0


sys.exit(main())
