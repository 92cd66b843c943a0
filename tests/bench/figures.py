"""What is computed from measured values: spreads, ratios, overhead and growth. Nothing here measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import linear_regression, median

from bench.report import percentile


@dataclass(frozen=True)
class Spread:
    """The middle of some values, and how far they lie apart."""

    median: float
    low: float
    high: float

    def shown(self, digits: int) -> str:
        """The median, and the other two in brackets."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Median, lowest and highest: of a few rounds."""
    return Spread(median(values), min(values), max(values))


def quartiles(values: Sequence[float]) -> Spread:
    """Median and the middle half: of many values, whose extremes say nothing."""
    return Spread(median(values), percentile(values, 25), percentile(values, 75))


def ratios(ours: Sequence[float], floor: Sequence[float]) -> Spread:
    """The ratio of each round to the floor of the same round: what slows a round down slows both."""
    return spread([one / other for one, other in zip(ours, floor, strict=True)])


@dataclass(frozen=True)
class Overhead:
    """What a way adds to the floor, from pairs that were measured next to each other."""

    added_ms: Spread
    """The middle half of the pairs' differences."""
    percent: float
    """The median difference, of the floor's median."""


def overhead(ours: Sequence[float], floor: Sequence[float]) -> Overhead:
    """Seconds of pairs to what ours adds. Noise that lasts longer than a pair is on both sides, and cancels."""
    added = quartiles([(one - other) * 1000 for one, other in zip(ours, floor, strict=True)])
    return Overhead(added, added.median / (median(floor) * 1000) * 100)


def growth(samples: Sequence[tuple[int, float]]) -> float:
    """The slope of (requests, MiB) samples, in MiB for a thousand requests: a leak has one, noise has none."""
    counts, sizes = zip(*samples, strict=True)
    return linear_regression(counts, sizes).slope * 1000
