"""The report of `plan`, for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from aiservice_kubectl.planning.children import Child
from aiservice_kubectl.planning.report import Report, Summary
from aiservice_kubectl.text import Colour, Paint, count, paragraph, plain

_COLUMN = 14
"""Where facts begin."""


def render(summary: Summary, paint: Paint, width: int) -> str:
    """Returns the whole report, in lines of a width."""
    parts = ["\n".join(_report(report, paint, width)) for report in summary.reports]
    return "\n\n".join([*parts, "\n".join(_total(summary, paint, width))])


def _report(report: Report, paint: Paint, width: int) -> Iterator[str]:
    verb = {True: "would be updated", False: "would be created", None: "would be created or updated"}[report.exists]
    title = f"{paint(report.title, Colour.STRONG)} (namespace {report.namespace})"
    if report.refused:
        yield f"{title} {paint('would not be accepted', Colour.BAD)}"
        yield from (paragraph(plain(text), width, "  ") for text in report.refused)
        return
    yield f"{title} {verb}"
    yield from _tree(report.children, "  ")
    yield from (_fact(name, text, width) for name, text in report.facts.items())
    if report.memory is not None:
        yield _fact("GPU memory", report.memory.words, width)
    if report.fit is not None:
        colour = {True: Colour.GOOD, False: Colour.BAD, None: Colour.WAIT}[report.fit.fits]
        yield _fact("capacity", report.fit.words, width, paint, colour)
    if report.cost_words:
        yield _fact("cost", report.cost_words, width)


def _fact(name: str, text: str, width: int, paint: Paint | None = None, colour: Colour | None = None) -> str:
    """A fact under its name, its lines below each other."""
    lines = textwrap.wrap(plain(text), width - _COLUMN, break_long_words=False, break_on_hyphens=False) or [""]
    shown = [paint(line, colour) if paint else line for line in lines]
    return f"  {name:<{_COLUMN - 2}}" + f"\n{' ' * _COLUMN}".join(shown)


def _tree(children: Sequence[Child], indent: str) -> Iterator[str]:
    """The children, the last with a corner: kinds and names align within a level."""
    width = max((len(f"{child.kind} {child.name}") for child in children), default=0)
    for child in children:
        last = child is children[-1]
        title = f"{child.kind} {child.name}"
        yield f"{indent}{'└─' if last else '├─'} {title:<{width}}   {plain(child.facts)}".rstrip()
        yield from _tree(child.children, indent + ("   " if last else "│  "))


def _total(summary: Summary, paint: Paint, width: int) -> Iterator[str]:
    yield paint("In all", Colour.STRONG)
    number, bad = len(summary.reports), sum(1 for report in summary.reports if report.refused)
    objects = count(number, "object")
    colour = Colour.BAD if bad else Colour.GOOD
    yield _fact("accepted", f"{number - bad} of {objects}" if bad else objects, width, paint, colour)
    fits = [report.fit.fits for report in summary.reports if report.fit is not None]
    if fits:
        yield _fact("capacity", _capacity(fits), width, paint, Colour.BAD if False in fits else None)
    priced = [report for report in summary.reports if report.cost is not None]
    unpriced = sum(1 for report in summary.reports if report.cost is None and report.cost_words)
    if priced:
        without = f" (without {unpriced} of unknown price)" if unpriced else ""
        yield _fact("cost", f"about {' + '.join(str(cost) for cost in summary.costs)} a month{without}", width)
    yield from (_fact("note", note, width) for note in summary.notes)


def _capacity(fits: Sequence[bool | None]) -> str:
    short, unknown = fits.count(False), fits.count(None)
    if short:
        return f"{short} of {count(len(fits), 'service')} {'does' if short == 1 else 'do'} not fit now"
    if unknown:
        return f"not known of {unknown} of {count(len(fits), 'service')}"
    return "all fit now, together"
