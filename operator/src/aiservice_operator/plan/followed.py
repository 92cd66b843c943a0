"""Which content of Secrets and ConfigMaps pods are made with, so that a change of it makes new ones.

Pods that were made before it could be told (a Secret that appeared later, `rollOnConfigChange` switched on) are not
replaced for being told: most of them have read that very content as they started, and those that wait for it are about
to. It is only remembered beside them, and a change from it replaces them as any other does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiservice_operator.observed import Child, mounted_references, seen_references


@dataclass(frozen=True, slots=True)
class Followed:
    """Hashes of what the pods of a service take from Secrets and ConfigMaps; empty: none."""

    by_pods: str = ""
    """On the pods: another one makes new pods."""
    seen: str = ""
    """On the Deployment, where the pods have none: what was there when it could first be told."""


def followed(found: str | None, live: Child | None, unchanged: Callable[[], bool]) -> Followed:
    """Decides which content pods are made with.

    Args:
        found: The hash of what is there; empty: nothing is named; None: it cannot be told just now.
        live: The Deployment as it is.
        unchanged: Whether pods without a hash would be those that there are.
    """
    if live is None:
        return Followed(found or "")
    with_them, seen = mounted_references(live), seen_references(live)
    if found is None:
        return Followed(with_them, seen)
    if found and not with_them and seen in {"", found} and unchanged():
        return Followed(seen=found)
    return Followed(found)
