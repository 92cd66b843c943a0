"""What is found out about a manifest, document by document: data, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from aiservice_kubectl.planning.children import Child
from aiservice_kubectl.planning.cost import Cost, total


@dataclass(frozen=True, slots=True)
class Memory:
    """How the model fits the memory of a GPU."""

    need_gib: float | None
    has_gib: float | None
    words: str


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether the pods find a place now."""

    fits: bool | None
    """None: it was not looked at."""
    words: str


@dataclass(frozen=True, slots=True)
class Report:
    """One document."""

    title: str
    namespace: str
    exists: bool | None
    """None: no cluster was asked."""
    refused: tuple[str, ...] = ()
    """Why it would not be accepted."""
    facts: dict[str, str] = field(default_factory=dict)
    children: tuple[Child, ...] = ()
    memory: Memory | None = None
    fit: Fit | None = None
    cost: Cost | None = None
    cost_words: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """All documents together."""

    reports: tuple[Report, ...]
    notes: tuple[str, ...]
    """What was not looked at, and why."""

    @property
    def accepted(self) -> bool:
        """Whether everything would be accepted."""
        return not any(report.refused for report in self.reports)

    @property
    def fits(self) -> bool:
        """Whether nothing is known not to fit."""
        return not any(report.fit is not None and report.fit.fits is False for report in self.reports)

    @property
    def costs(self) -> Sequence[Cost]:
        """The sums, by currency."""
        return total(report.cost for report in self.reports if report.cost is not None)
