"""The statements that read usage, for PostgreSQL and SQLite alike: rows, and sums over rows and roll-ups.

A record is either a row or part of a roll-up, never both, so a sum over the two in one statement counts it once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from aiservice_api.tasks import Task
from aiservice_gateway.errors import TooFineError
from aiservice_gateway.models import Totals
from aiservice_gateway.selection import Dimension, Filter, Group, Period, StoredRecord, Want

_UNITS_DIGITS = 6
_COST_DIGITS = 8
"""Of the columns' scales. SQLite sums in floating point; rounded, both databases say the same."""

_MONTH_AND_SOME = 32
"""Days after the first of a month, the next one has begun."""

_SERVICES = ", ".join(f"'{task}'" for task in Task)
"""Rows of other services are the application's own."""

_ROWS = {
    Dimension.TENANT: '"tenantId"',
    Dimension.SERVICE: "service",
    Dimension.MODEL: "model",
    Dimension.USER: '"userId"',
}
_ROLLED_UP = {
    Dimension.TENANT: "tenant_id",
    Dimension.SERVICE: "service",
    Dimension.MODEL: "model",
    Dimension.USER: "user_id",
}
_MAY_BE_NONE = {Dimension.MODEL, Dimension.USER}


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where the two databases differ."""

    mark: str
    """What a numbered parameter begins with."""
    daily: str
    """Table of the roll-ups."""
    horizon: str
    """The first day that is not part of its month's sum; those sums are rows of the months' first days."""
    by_bytes: str
    """Makes texts compare by their bytes."""
    moment_parameter: str
    """A parameter, `{}`, as a time."""
    moment_column: str
    """A column, `{}`, as a time."""
    encode: Callable[[datetime], object]
    """A time as the driver takes it."""
    cut: Mapping[Dimension, str]
    """The month, day or hour of `moment`."""
    shown: Mapping[Dimension, str]
    """The same, `{}`, as a text."""


@dataclass(slots=True)
class Statement:
    """SQL and the values of its parameters."""

    dialect: Dialect
    sql: str = ""
    values: list[object] = field(default_factory=list)

    def value(self, value: object) -> str:
        """Adds a value; returns its parameter."""
        self.values.append(value)
        return f"{self.dialect.mark}{len(self.values)}"

    def moment(self, moment: datetime) -> str:
        """Adds a time; returns its parameter."""
        return self.dialect.moment_parameter.format(self.value(self.dialect.encode(moment)))


def groups(dialect: Dialect, want: Want) -> Statement:
    """Sums by the dimensions, in the order of their values."""
    statement, dimensions = Statement(dialect), want.dimensions
    columns = [f"{_cut(dialect, one)} AS g{number}" for number, one in enumerate(dimensions)]
    keys = [f"{_shown(dialect, one, f'g{number}')} AS k{number}" for number, one in enumerate(dimensions)]
    order = ", ".join(f"k{number}" for number in range(len(dimensions)))
    sources = f"{_rows(statement, want)} UNION ALL {_rolled_up(statement, want)}"
    past = ""
    if want.after is not None:
        past = f"WHERE ({order}) > ({', '.join(map(statement.value, want.after))})"
    # The keys are made of the sums' few rows, not of every record. Each text is a constant of this module, or of Task.
    statement.sql = f"""
        SELECT * FROM (
            SELECT {", ".join(keys)}, count, tokens, units, unit, cost FROM (
                SELECT {", ".join(columns)},
                       CAST(sum(count) AS bigint) AS count, CAST(sum(tokens) AS bigint) AS tokens,
                       CAST(sum(units) AS double precision) AS units,
                       CASE WHEN min(unit) = max(unit) THEN min(unit) END AS unit,
                       CAST(sum(cost) AS double precision) AS cost
                FROM ({sources}) AS used GROUP BY {", ".join(f"g{number}" for number in range(len(dimensions)))}
            ) AS summed
        ) AS keyed {past} ORDER BY {order} LIMIT {statement.value(want.limit)}
    """  # noqa: S608 - see above
    return statement


def group(dimensions: Sequence[Dimension], row: Sequence[Any]) -> Group:
    """A row of `groups`."""
    place = tuple(row[: len(dimensions)])
    count, tokens, units, unit, cost = row[len(dimensions) :]
    totals = Totals(count, tokens, round(units, _UNITS_DIGITS), unit, round(cost, _COST_DIGITS))
    key = (_unmarked(value) if one in _MAY_BE_NONE else value for one, value in zip(dimensions, place, strict=True))
    return Group(tuple(key), totals, place)


def records(dialect: Dialect, want: Want) -> Statement:
    """Rows, the newest first."""
    statement = Statement(dialect)
    conditions = _conditions(statement, _ROWS, '"createdAt"', want.which, want.period)
    by_id = f"CAST(id AS text){dialect.by_bytes}"
    if want.after is not None:
        moment, last = statement.moment(datetime.fromisoformat(want.after[0])), statement.value(want.after[1])
        conditions += f' AND "createdAt" <= {moment} AND ("createdAt" < {moment} OR {by_id} < {last})'
    # ORDER BY means a column of the answer before one of the table of that name, and no index is of the former.
    statement.sql = f"""
        SELECT CAST(id AS text), CAST("tenantId" AS text), CAST("userId" AS text), CAST(service AS text),
               CAST(model AS text), coalesce(tokens, 0), CAST(coalesce(units, 0) AS double precision),
               CAST(unit AS text), CAST(coalesce(cost, 0) AS double precision), coalesce("durationMs", 0),
               CAST(status AS text), {dialect.moment_column.format('"createdAt"')}
        FROM "AIUsage" WHERE {conditions}
        ORDER BY "AIUsage"."createdAt" DESC, {by_id} DESC LIMIT {statement.value(want.limit)}
    """  # noqa: S608 - made of constants of this module
    return statement


def record(row: Sequence[Any], created_at: datetime) -> StoredRecord:
    """A row of `records`, whose last column was read as `created_at`."""
    identifier, tenant, user, service, model, tokens, units, unit, cost, duration_ms, status, _ = row
    return StoredRecord(
        identifier, tenant, user, service, model, tokens, units, unit, cost, duration_ms, status, created_at
    )


def too_fine(dialect: Dialect, want: Want) -> Statement | None:
    """Asks whether roll-ups, which know days or only months, would have to be cut; None where nothing can be.

    Its one row says it of days and of months: then sums would leave something out, or hold what was not asked for.
    """
    statement, period, dimensions = Statement(dialect), want.period, want.dimensions
    days = [_whole_days(one) for one in _cut_of(period, _midnight, whole=Dimension.HOUR not in dimensions)]
    by_month = not {Dimension.HOUR, Dimension.DAY} & set(dimensions)
    months = [_whole_months(one) for one in _cut_of(period, _first_of_month, whole=by_month)]
    if not days and not months:
        return None
    found = (_any(statement, want.which, days), _any(statement, want.which, months, f"day < {dialect.horizon}"))
    statement.sql = f"SELECT {', '.join(found)}"
    return statement


def refuse(too_fine: Sequence[Any]) -> None:
    """Refuses what the row of `too_fine` says that it cannot be told.

    Raises:
        TooFineError: something.
    """
    of_days, of_months = too_fine
    if of_months:
        raise TooFineError("month")
    if of_days:
        raise TooFineError("day")


def _cut_of(period: Period, floor: Callable[[datetime], datetime], *, whole: bool) -> list[Period]:
    """When no sums may be: in the period; or, where sums are wanted `whole`, where its edges cut one."""
    if not whole:
        return [period]
    return [Period(edge, edge) for edge in (period.start, period.end) if edge != floor(edge)]


def _any(statement: Statement, which: Filter, periods: Sequence[Period], only: str = "true") -> str:
    """Whether a roll-up is in one of these periods."""
    if not periods:
        return "false"
    either = " OR ".join(f"({_conditions(statement, _ROLLED_UP, 'day', which, period)})" for period in periods)
    return f"EXISTS (SELECT 1 FROM {statement.dialect.daily} WHERE ({either}) AND {only})"  # noqa: S608 - constants


def _whole_days(period: Period) -> Period:
    """The days that a period touches."""
    start, end = _midnight(period.start), _midnight(period.end)
    return Period(start, end if end == period.end else _days_after(end, 1))


def _whole_months(period: Period) -> Period:
    """The months that a period touches."""
    start, end = _first_of_month(period.start), _first_of_month(period.end)
    return Period(start, end if end == period.end else _first_of_month(_days_after(end, _MONTH_AND_SOME)))


def _first_of_month(moment: datetime) -> datetime:
    return _midnight(moment).replace(day=1)


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _days_after(day: datetime, days: int) -> datetime:
    try:
        return day + timedelta(days=days)
    except OverflowError:
        return datetime.max.replace(tzinfo=day.tzinfo)


def _rows(statement: Statement, want: Want) -> str:
    moment = statement.dialect.moment_column.format('"createdAt"')
    conditions = _conditions(statement, _ROWS, '"createdAt"', want.which, want.period)
    # An application's own table may have other types: identifiers as uuid, the service as an enumeration.
    return f"""
        SELECT CAST("tenantId" AS text) AS tenant, CAST(service AS text) AS service,
               nullif(CAST(model AS text), '') AS model, nullif(CAST("userId" AS text), '') AS user_id,
               {moment} AS moment, 1 AS count, coalesce(tokens, 0) AS tokens, coalesce(units, 0) AS units,
               nullif(CAST(unit AS text), '') AS unit, coalesce(cost, 0) AS cost
        FROM "AIUsage" WHERE {conditions}
    """  # noqa: S608 - made of constants of this module


def _rolled_up(statement: Statement, want: Want) -> str:
    moment = statement.dialect.moment_column.format("day")
    conditions = _conditions(statement, _ROLLED_UP, "day", want.which, want.period)
    return f"""
        SELECT tenant_id, service, nullif(model, ''), nullif(user_id, ''), {moment}, count, tokens, units,
               nullif(unit, ''), cost
        FROM {statement.dialect.daily} WHERE {conditions}
    """  # noqa: S608 - made of constants of this module


def _conditions(
    statement: Statement, columns: Mapping[Dimension, str], moment: str, which: Filter, period: Period
) -> str:
    found = [f"{moment} >= {statement.moment(period.start)}", f"{moment} < {statement.moment(period.end)}"]
    found.append(f"CAST({columns[Dimension.SERVICE]} AS text) IN ({_SERVICES})")
    if which.tenant is not None:
        found.append(f"{columns[Dimension.TENANT]} = {statement.value(which.tenant)}")
    others = {Dimension.SERVICE: which.service, Dimension.MODEL: which.model, Dimension.USER: which.user}
    for dimension, value in others.items():
        if value is not None:
            found.append(f"CAST({columns[dimension]} AS text) = {statement.value(str(value))}")
    return " AND ".join(found)


def _cut(dialect: Dialect, dimension: Dimension) -> str:
    """What a dimension is in the records."""
    return dialect.cut.get(dimension) or ("user_id" if dimension is Dimension.USER else dimension.value)


def _shown(dialect: Dialect, dimension: Dimension, column: str) -> str:
    """What a dimension is in the answer and for the order: a text that is never NULL."""
    if dimension in dialect.shown:
        column = dialect.shown[dimension].format(column)
    elif dimension in _MAY_BE_NONE:
        column = f"coalesce('+' || {column}, '')"
    return f"{column}{dialect.by_bytes}"


def _unmarked(value: str) -> str | None:
    """What `_shown` made of a value that may be missing."""
    return value[1:] if value else None
