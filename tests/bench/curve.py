"""Draws a benchmark's curves as SVG: two panels side by side, over the same counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

_WIDTH, _HEIGHT = 430, 310
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 66, 44
_COLOURS = ("#2563eb", "#94a3b8", "#d97706")
_INK, _GRID, _PAPER = "#334155", "#e2e8f0", "#ffffff"


@dataclass(frozen=True)
class Curve:
    """One line; `values` belong to the counts, one each, None where it was not measured."""

    label: str
    unit: str
    values: Sequence[float | None]


def draw(counts: Sequence[int], *panels: Sequence[Curve]) -> str:
    """Returns the picture: a panel for each sequence of curves, on linear axes from zero."""
    width = _WIDTH * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_HEIGHT}" viewBox="0 0 {width} {_HEIGHT}">',
        '<g font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{_HEIGHT}" fill="{_PAPER}"/>',
    ]
    for index, curves in enumerate(panels):
        parts += [f'<g transform="translate({_WIDTH * index} 0)">', *_panel(counts, curves), "</g>"]
    return "\n".join([*parts, "</g></svg>"]) + "\n"


def _panel(counts: Sequence[int], curves: Sequence[Curve]) -> list[str]:
    top = _ceiling(max(value for curve in curves for value in curve.values if value is not None))
    right = _ceiling(max(counts))

    def x(count: float) -> float:
        return round(_LEFT + count / right * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        return round(_HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM), 1)

    parts = []
    for step in range(5):
        value = top * step / 4
        parts += [
            f'<path d="M{x(0)} {y(value)}H{x(right)}" stroke="{_GRID}"/>',
            f'<text x="{_LEFT - 8}" y="{y(value) + 4}" fill="{_INK}" text-anchor="end">{value:g}</text>',
        ]
    for count in counts:
        if count >= right / 12:  # closer ones would be written over each other
            parts.append(f'<text x="{x(count)}" y="{y(0) + 18}" fill="{_INK}" text-anchor="middle">{count:,}</text>')
    parts.append(f'<text x="{x(right)}" y="{y(0) + 36}" fill="{_INK}" text-anchor="end">AIServices</text>')
    for number, curve in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        known = zip(counts, curve.values, strict=True)
        points = " ".join(f"{x(count)},{y(value)}" for count, value in known if value is not None)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{point.split(",")[0]}" cy="{point.split(",")[1]}" r="3" fill="{colour}"/>'
            for point in points.split()
        ]
        parts += [
            f'<rect x="{_LEFT}" y="{12 + 16 * number}" width="12" height="4" fill="{colour}"/>',
            f'<text x="{_LEFT + 18}" y="{18 + 16 * number}" fill="{_INK}">{curve.label}, {curve.unit}</text>',
        ]
    return parts


def _ceiling(value: float) -> float:
    """The next number with one or two leading digits that four divides well."""
    scale = 10.0 ** int(log10(value))
    return next(step * scale for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10, 12) if step * scale >= value)
