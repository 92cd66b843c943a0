"""What services cost a month, by the prices of their profiles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from aiservice_operator.settings import Price

HOURS = 730
"""Of a month, as cloud providers count: 365 x 24 / 12."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What pods cost a month, from the fewest to the most of them."""

    least: Decimal
    most: Decimal
    currency: str

    def __str__(self) -> str:
        """In words: `365 USD`, or `365 to 1,460 USD`."""
        amounts = [_amount(self.least)] if self.least == self.most else [_amount(self.least), _amount(self.most)]
        return f"{' to '.join(amounts)} {self.currency}"


def monthly(price: Price, least: int, most: int) -> Cost:
    """Returns what some pods cost a month."""
    each = price.hourly * HOURS
    return Cost(each * least, each * most, price.currency)


def total(costs: Iterable[Cost]) -> list[Cost]:
    """Returns the sums, one for each currency."""
    sums: dict[str, Cost] = {}
    for cost in costs:
        known = sums.get(cost.currency, Cost(Decimal(0), Decimal(0), cost.currency))
        sums[cost.currency] = Cost(known.least + cost.least, known.most + cost.most, cost.currency)
    return [sums[currency] for currency in sorted(sums)]


def _amount(value: Decimal) -> str:
    return f"{value:,.2f}".removesuffix(".00")
