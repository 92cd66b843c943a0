"""What a request costs: units that the engine measured, times the price of one."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from aiservice_api.tasks import Task
from aiservice_gateway.models import Measured, UsageRecord

# The engines' own rounding, so that the cost in an answer and in the ledger are the same.
_SMALLEST_MONEY = Decimal("0.000001")
_SMALLEST_UNIT = Decimal("0.001")
_MOST_UNITS = Decimal(10) ** 9
_MOST_TOKENS = 2**31 - 1  # the column is a 32-bit integer
_UNIT_CHARACTERS = 64


def cost(units: Decimal, price: Decimal) -> Decimal:
    """Dollars, rounded as the engines round what they answer."""
    return (units * price).quantize(_SMALLEST_MONEY, ROUND_HALF_UP)


def price_header(prices: Mapping[Task, Decimal], task: Task) -> str:
    """The price of one unit as an engine is told it, never in exponent form."""
    return format(prices[task], "f")


def read_measured(headers: Mapping[str, str]) -> Measured:
    """What an engine says it did.

    Args:
        headers: Of the engine's answer, case-insensitive. Absent headers mean nothing was done.

    Raises:
        ValueError: a number is malformed, negative or beyond reason.
    """
    unit = headers.get("X-AIService-Unit")
    return Measured(
        units=_decimal(headers.get("X-AIService-Units", "0")),
        unit=unit[:_UNIT_CHARACTERS] if unit and unit.isprintable() else None,
        tokens=_integer(headers.get("X-AIService-Tokens", "0")),
    )


def _decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f"not a number: {text!r}") from error
    if not value.is_finite() or not 0 <= value <= _MOST_UNITS:
        raise ValueError(f"out of range: {text!r}")
    return value.quantize(_SMALLEST_UNIT, ROUND_HALF_UP)


def _integer(text: str) -> int:
    value = int(text)
    if not 0 <= value <= _MOST_TOKENS:
        raise ValueError(f"out of range: {text!r}")
    return value


def usage_of(record: UsageRecord) -> dict[str, object]:
    """What a record charges, as the services' answers tell it."""
    return {"units": float(record.units), "unit": record.unit, "tokens": record.tokens, "cost": float(record.cost)}
