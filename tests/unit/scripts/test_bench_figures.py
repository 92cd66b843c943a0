"""The arithmetic between measured values and printed figures."""

from __future__ import annotations

import pytest

from bench.figures import Spread, growth, overhead, quartiles, ratios, spread


def test_a_spread_tells_the_extremes_of_a_few_rounds() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([3.0, 1.0, 2.04]).shown(1) == "2.0 (1.0-3.0)"


def test_quartiles_leave_extremes_out() -> None:
    assert quartiles([*range(1, 101), 10_000.0]) == Spread(51, 26, 76)


def test_ratios_compare_a_round_with_the_floor_of_that_round() -> None:
    slow_second_round = ratios([20.0, 10.0], [10.0, 5.0])
    assert slow_second_round == Spread(2.0, 2.0, 2.0)


def test_noise_that_both_of_a_pair_have_is_no_overhead() -> None:
    floor = [0.100, 0.300, 0.100]
    found = overhead([value + 0.002 for value in floor], floor)
    assert found.added_ms.median == pytest.approx(2)
    assert found.added_ms.high - found.added_ms.low == pytest.approx(0)
    assert found.percent == pytest.approx(2)


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        overhead([0.1], [0.1, 0.2])


@pytest.mark.parametrize(("sizes", "slope"), [([500.0, 500.0, 500.0], 0), ([500.0, 501.0, 502.0], 4)])
def test_growth_is_told_for_a_thousand_requests(sizes: list[float], slope: float) -> None:
    assert growth(list(zip([0, 250, 500], sizes, strict=True))) == pytest.approx(slope)
