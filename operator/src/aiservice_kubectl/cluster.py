"""What is in the cluster, as the operator's own typed views of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from aiservice_kubectl.errors import RefusedError
from aiservice_kubectl.kubectl import Kubectl
from aiservice_operator import names
from aiservice_operator.kinds import RESOURCES, Json, Kind
from aiservice_operator.observed import Cache, Child, Service, parse

_Item = TypeVar("_Item")
_Value = TypeVar("_Value")
_PAGE = "500"


class Cluster:
    """Reads of one cluster."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.kubectl = kubectl

    def services(self, namespace: str | None) -> list[Service]:
        """Returns the AIServices of a namespace, or of all."""
        return _only(Service, Kind.AISERVICE, self.bodies(Kind.AISERVICE, namespace))

    def caches(self, namespace: str | None) -> list[Cache]:
        """Returns the ModelCaches of a namespace, or of all."""
        return _only(Cache, Kind.MODEL_CACHE, self.bodies(Kind.MODEL_CACHE, namespace))

    def children(self, kind: Kind, namespace: str | None, selector: str = names.SELECTOR) -> list[Child]:
        """Returns the objects of a kind that the operator, or a controller below it, made."""
        return _only(Child, kind, self.bodies(kind, namespace, selector))

    def bodies(self, kind: Kind, namespace: str | None, selector: str = "") -> list[Json]:
        """Returns the objects of a kind as the API server has them."""
        return self.items(RESOURCES[kind].path(namespace), {"labelSelector": selector} if selector else {})

    def items(self, path: str, query: dict[str, str] | None = None) -> list[Json]:
        """Returns all items of a collection, page by page."""
        asked = {**(query or {}), "limit": _PAGE}
        page = self.kubectl.get(path, asked)
        items: list[Json] = page["items"]
        while token := page["metadata"].get("continue"):
            page = self.kubectl.get(path, {**asked, "continue": token})
            items += page["items"]
        return items

    def events(self, namespace: str, uids: Iterable[str]) -> list[Json]:
        """Returns the Events (core/v1) about objects, oldest first."""
        wanted = set(uids)
        found = self.items(f"/api/v1/namespaces/{namespace}/events")
        about = [event for event in found if event.get("involvedObject", {}).get("uid") in wanted]
        return sorted(about, key=event_time)


def event_time(event: Json) -> str:
    """Returns when an Event last happened; RFC 3339 in UTC sorts as text."""
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"]["creationTimestamp"]
    )


def together(*asked: Callable[[], _Value]) -> list[_Value]:
    """Asks several things at once: each is a process of its own, and waits mostly."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        return [answer.result() for answer in [pool.submit(ask) for ask in asked]]


def if_allowed(ask: Callable[[], list[_Item]], left_out: list[str]) -> list[_Item]:
    """Returns the answer; where the user may not ask, none, and adds to `left_out` what the API server said."""
    try:
        return ask()
    except RefusedError as error:
        if error.reason not in {"Forbidden", "NotFound"}:
            raise
        left_out.append(str(error))
        return []


def _only(wanted: type[_Value], kind: Kind, bodies: Sequence[Json]) -> list[_Value]:
    parsed = (parse(kind, body) for body in bodies)
    return [item for item in parsed if isinstance(item, wanted)]
