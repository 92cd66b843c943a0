"""Bodies of children, kept for as long as what they are built from is the same.

A reconcile plans several times in a row, and a service is reconciled whenever one of its pods changes, mostly from the
same spec: to build everything anew would take most of the time that a plan takes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

_Built = TypeVar("_Built")
_KEPT = 1024
"""Some services, with all of their children: those that change now, not all that there are."""


class Bodies:
    """Remembers what was built last, for one configuration. What is kept must not be changed."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, build: Callable[[], _Built]) -> _Built:
        """Returns what was built for a key before, or else builds it.

        Args:
            key: Everything that it is built from, besides the configuration.
            build: Builds it.
        """
        if key not in self._known:
            self._known[key] = build()
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        found: _Built = self._known[key]
        return found
