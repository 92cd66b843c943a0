"""The pure parts of usage: CSV, cursors, what a client would rather have."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta, timezone

import pytest

from aiservice_gateway import csv_text
from aiservice_gateway.cursors import Cursor, decode
from aiservice_gateway.errors import BadRequestError, ForbiddenError
from aiservice_gateway.models import Identity
from aiservice_gateway.negotiation import prefers
from aiservice_gateway.routers import usage_documents as documents
from aiservice_gateway.selection import Filter, Period
from aiservice_gateway.services.usage import Question, tenant_asked

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
PERIOD = Period(datetime(2026, 11, 1, tzinfo=UTC), NOW)


@pytest.mark.parametrize("value", ["plain", 'a "quoted" word', "a, b; c", "two\r\nlines", "", "ünï", " spaced ", "1.5"])
def test_csv_is_read_as_it_was_written(value: str) -> None:
    text = csv_text.line([value, None, 3, 0.000005, "end"])
    assert text.endswith("\r\n")
    [row] = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert row == [value, "", "3", "0.000005", "end"]


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "－1", "＋1", "＠1"])
def test_csv_runs_no_formula(value: str) -> None:
    [row] = csv.reader(io.StringIO(csv_text.line([value]), newline=""), strict=True)
    assert row == [f"'{value}"]


def test_a_number_is_no_formula() -> None:
    assert csv_text.line([-1.5, 12]) == "-1.5,12\r\n"


def test_a_cursor_tells_where_to_go_on() -> None:
    cursor = Cursor(PERIOD, ("+a", "", "ünï"))
    text = cursor.encode(("question", 1))
    assert decode(text, ("question", 1), 3) == cursor
    assert text.isascii()
    assert not set(text) & set("+/=&")


@pytest.mark.parametrize(
    "text", ["", "x", "ünï", "bnVsbA", "W10", "WyJhIl0", "A" * 9000, "////", "WyJhIiwiMjAyNiIsIjIwMjciXQ"]
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match=r"^cursor: it is none that this gateway gave"):
        decode(text, "question", 1)


def test_a_cursor_of_another_question_is_refused() -> None:
    text = Cursor(PERIOD, ("a",)).encode("question")
    for question, places in (("other", 1), ("question", 2)):
        with pytest.raises(BadRequestError, match="another question"):
            decode(text, question, places)


@pytest.mark.parametrize(
    ("accept", "csv_wanted"),
    [
        ([], False),
        (["*/*"], False),
        (["text/csv"], True),
        (["TEXT/CSV; charset=utf-8"], True),
        (["text/*"], False),
        (["application/json, text/csv"], False),
        (["application/json;q=0.5, text/csv"], True),
        (["text/csv;q=0.4, application/json;q=0.5"], False),
        (["text/csv", "*/*;q=0.1"], True),
        (["text/csv, */*"], False),
        (["text/csv;q=0"], False),
        (["text/csv;q=x"], False),
        (["text/csv;q=0.3, application/*;q=0.2, */*"], True),
        (["text/html,application/xhtml+xml,*/*;q=0.8"], False),
    ],
)
def test_csv_is_sent_to_those_who_want_it_more(accept: list[str], csv_wanted: bool) -> None:
    assert prefers(accept, "text/csv", over="application/json") is csv_wanted


def test_a_period_without_bounds_is_this_month() -> None:
    which = Filter("acme")
    assert Question(which).period(NOW) == PERIOD
    end = datetime(2026, 2, 15, tzinfo=UTC)
    assert Question(which, end=end).period(NOW) == Period(datetime(2026, 2, 1, tzinfo=UTC), end)
    naive, zoned = datetime(2026, 2, 1), datetime(2026, 2, 1, 2, tzinfo=timezone(timedelta(hours=2)))  # noqa: DTZ001
    assert Question(which, naive, zoned).period(NOW) == Period(*2 * [datetime(2026, 2, 1, tzinfo=UTC)])


def test_a_period_is_of_whole_milliseconds() -> None:
    start, end = datetime(2026, 2, 1, 0, 0, 0, 1, tzinfo=UTC), datetime(2026, 2, 1, 0, 0, 0, 5000, tzinfo=UTC)
    period = Question(Filter("acme"), start, end).period(NOW)
    assert (period.start, period.end) == (start.replace(microsecond=1000), end)
    with pytest.raises(BadRequestError, match="outside the years"):
        Question(Filter("acme"), end=datetime.max.replace(tzinfo=UTC)).period(NOW)


@pytest.mark.parametrize(
    ("asked", "admin", "means"), [(None, False, "acme"), ("acme", False, "acme"), ("b", True, "b"), ("*", True, None)]
)
def test_whose_usage_is_meant(asked: str | None, admin: bool, means: str | None) -> None:
    assert tenant_asked(Identity("acme", None, admin), asked) == means


@pytest.mark.parametrize("asked", ["b", "*", "ACME"])
def test_another_tenants_usage_is_for_administrators(asked: str) -> None:
    with pytest.raises(ForbiddenError):
        tenant_asked(Identity("acme", None), asked)


def test_the_columns_of_csv_are_the_fields_of_json() -> None:
    assert tuple(documents.RecordAnswer.model_fields) == documents.RECORD_COLUMNS
    totals = tuple(documents.GroupAnswer.model_fields)[-5:]
    assert documents.group_columns(()) == totals
