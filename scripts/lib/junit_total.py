"""Adds up pytest's JUnit reports of one folder and prints `N passed, N failed, N skipped`."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree


def total(folder: Path) -> tuple[int, int, int]:
    """Returns how many tests of all `*.xml` reports passed, failed (errors included) and were skipped."""
    passed = failed = skipped = 0
    for report in sorted(folder.glob("*.xml")):
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):  # noqa: S314 (pytest's own reports)
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            left_out = int(suite.get("skipped", 0))
            passed += int(suite.get("tests", 0)) - bad - left_out
            failed += bad
            skipped += left_out
    return passed, failed, skipped


if __name__ == "__main__":
    print("\n{} passed, {} failed, {} skipped".format(*total(Path(sys.argv[1]))))
