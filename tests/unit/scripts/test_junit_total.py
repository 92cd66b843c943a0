from __future__ import annotations

from pathlib import Path

from junit_total import total


def test_totals_over_all_reports(tmp_path: Path) -> None:
    several = '<testsuites><testsuite tests="7" failures="1" errors="1" skipped="2"/></testsuites>'
    (tmp_path / "a.xml").write_text(several)
    (tmp_path / "b.xml").write_text('<testsuite tests="3" failures="0" errors="0" skipped="0"/>')
    assert total(tmp_path) == (6, 2, 2)


def test_no_report_is_no_test(tmp_path: Path) -> None:
    assert total(tmp_path) == (0, 0, 0)
