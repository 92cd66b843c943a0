"""The report of `plan`, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aiservice_kubectl.planning.children import Child
from aiservice_kubectl.planning.report import Report, Summary
from aiservice_kubectl.text import Colour, Paint, plain

_FACT = "  {:<12}{}"


def render(summary: Summary, paint: Paint) -> str:
    """Returns the whole report."""
    parts = ["\n".join(_report(report, paint)) for report in summary.reports]
    return "\n\n".join([*parts, "\n".join(_total(summary, paint))])


def _report(report: Report, paint: Paint) -> Iterator[str]:
    verb = {True: "would be updated", False: "would be created", None: "would be created or updated"}[report.exists]
    title = f"{paint(report.title, Colour.STRONG)} (namespace {report.namespace})"
    if report.refused:
        yield f"{title} {paint('would not be accepted', Colour.BAD)}"
        yield from (f"  {line}" for text in report.refused for line in plain(text).splitlines())
        return
    yield f"{title} {verb}"
    yield from _tree(report.children, "  ")
    facts = {**report.facts}
    if report.memory is not None:
        facts["GPU memory"] = report.memory.words
    if report.fit is not None:
        colour = {True: Colour.GOOD, False: Colour.BAD, None: Colour.WAIT}[report.fit.fits]
        facts["capacity"] = paint(plain(report.fit.words), colour)
    if report.cost_words:
        facts["cost"] = report.cost_words
    yield from (_FACT.format(name, text) for name, text in facts.items())


def _tree(children: Sequence[Child], indent: str) -> Iterator[str]:
    """The children, the last with a corner: kinds and names align within a level."""
    width = max((len(f"{child.kind} {child.name}") for child in children), default=0)
    for child in children:
        last = child is children[-1]
        title = f"{child.kind} {child.name}"
        yield f"{indent}{'└─' if last else '├─'} {title:<{width}}   {plain(child.facts)}".rstrip()
        yield from _tree(child.children, indent + ("   " if last else "│  "))


def _total(summary: Summary, paint: Paint) -> Iterator[str]:
    number = len(summary.reports)
    objects = f"{number} objects" if number != 1 else "1 object"
    bad = sum(1 for report in summary.reports if report.refused)
    yield paint("In all", Colour.STRONG)
    yield _FACT.format("accepted", objects if not bad else paint(f"{number - bad} of {objects}", Colour.BAD))
    fits = [report.fit.fits for report in summary.reports if report.fit is not None]
    if False in fits:
        yield _FACT.format("capacity", paint(f"{fits.count(False)} of {len(fits)} do not fit now", Colour.BAD))
    elif fits:
        unknown = fits.count(None)
        yield _FACT.format("capacity", f"not known of {unknown}" if unknown else "all fit now, together")
    priced = [report for report in summary.reports if report.cost is not None]
    unpriced = sum(1 for report in summary.reports if report.cost is None and report.cost_words)
    if priced:
        without = f" (without {unpriced} of unknown price)" if unpriced else ""
        yield _FACT.format("cost", f"about {' + '.join(str(cost) for cost in summary.costs)} a month{without}")
    yield from (_FACT.format("note", plain(note)) for note in summary.notes)
