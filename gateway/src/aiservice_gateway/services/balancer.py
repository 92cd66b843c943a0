"""Which pod of a service a request goes to: the one with the fewest requests of this gateway, of those that are well.

A pod is left out for a time, longer each time, after several failures in a row (outlier ejection), though never more
than half of a service's pods; when its time is over, one real request finds out whether it is well again. A pod that
said 503 is passed over for as long as it asked, while another one can take the request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from aiservice_api.tasks import Task
from aiservice_gateway.errors import UnavailableError

FAILURES_IN_A_ROW = 5
_FIRST_EJECTION_SECONDS = 5.0
_LONGEST_EJECTION_SECONDS = 300.0
_FORGIVEN_AFTER_SECONDS = 300.0
"""A pod that was well for so long starts over with the shortest ejection."""
_NO_POD_RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Address:
    """One pod's base URL for one task. A pod that does several tasks has several, with the same `pod`."""

    pod: str
    url: str
    """Without a trailing slash."""


Addresses = Mapping[Task, Sequence[Address]]


class Standing(IntEnum):
    """How much a pod is to be preferred; less is better."""

    WELL = 0
    BUSY = 1
    """It said 503, and the time that it asked for is not over."""
    EJECTED = 2
    """It failed, and its time is not over, or a request is finding out."""


@dataclass(slots=True, eq=False)
class Pod:
    """What this gateway knows of a pod. Times are those of time.monotonic()."""

    name: str
    outstanding: int = 0
    """Requests of this gateway that it has now."""
    failures: int = 0
    """In a row."""
    ejections: int = 0
    """In a row, without a long good time between them."""
    ejected_until: float | None = None
    busy_until: float = 0.0
    well_since: float = 0.0
    probing: bool = False
    """Whether the request that finds out is under way."""

    def standing(self, now: float) -> Standing:
        """Whether it should get requests."""
        if self.ejected_until is not None:
            return Standing.EJECTED if self.probing or now < self.ejected_until else Standing.WELL
        return Standing.BUSY if now < self.busy_until else Standing.WELL


@dataclass(frozen=True, slots=True)
class Choice:
    """A pod, and where its task is."""

    pod: Pod
    url: str


_RANK = 1 << 32
"""More than any number of requests."""
_TRIED = 3
"""Worse than any standing."""


class Balancer:
    """The pods of one service."""

    def __init__(self, ejected: Callable[[], None]) -> None:
        """Knows no pod.

        Args:
            ejected: Told when a pod is left out.
        """
        self._on_ejected = ejected
        self._addresses: Addresses = {}
        self._pods: dict[str, Pod] = {}
        self._choices: dict[Task, list[Choice]] = {}
        self._turn = 0

    @property
    def addresses(self) -> Addresses:
        """What `update` was last given."""
        return self._addresses

    @property
    def known(self) -> int:
        """How many pods there are."""
        return len(self._pods)

    def ejected(self) -> int:
        """How many are left out."""
        return sum(pod.ejected_until is not None for pod in self._pods.values())

    def update(self, addresses: Addresses, now: float) -> None:
        """Replaces the pods; those that stay keep their history."""
        self._addresses = addresses
        names = {address.pod for several in addresses.values() for address in several}
        self._pods = {name: self._pods.get(name) or Pod(name, well_since=now) for name in sorted(names)}
        self._choices = {
            task: [Choice(self._pods[address.pod], address.url) for address in several]
            for task, several in addresses.items()
        }
        surplus = self.ejected() - len(self._pods) // 2
        if surplus > 0:  # others have gone: the soonest to come back do so now
            ejected = [(pod.ejected_until, pod) for pod in self._pods.values() if pod.ejected_until is not None]
            for _, pod in sorted(ejected, key=lambda item: item[0])[:surplus]:
                _readmit(pod, now)

    def choose(self, task: Task, now: float, tried: Collection[Pod] = ()) -> Choice:
        """The pod for a request; it has one more from now on, until `release`.

        Args:
            task: What is asked for.
            now: time.monotonic().
            tried: Pods that had this request already; they come last.

        Raises:
            UnavailableError: there is no pod.
        """
        choices = self._choices.get(task)
        if not choices:
            raise UnavailableError(
                "No pod of the service is ready: try again later.", retry_after=_NO_POD_RETRY_SECONDS
            )
        choice = choices[0] if len(choices) == 1 else self._least(choices, now, tried)
        pod = choice.pod
        pod.outstanding += 1
        if pod.ejected_until is not None and now >= pod.ejected_until:
            pod.probing = True
        return choice

    def another(self, task: Task, now: float, tried: Collection[Pod]) -> bool:
        """Whether a pod that is well has not had the request."""
        return any(
            choice.pod not in tried and choice.pod.standing(now) is Standing.WELL
            for choice in self._choices.get(task, ())
        )

    def release(self, pod: Pod) -> None:
        """A request has left a pod, however it ended."""
        pod.outstanding -= 1
        pod.probing = False

    def succeeded(self, pod: Pod, now: float) -> None:
        """A pod answered."""
        pod.failures = 0
        pod.busy_until = 0.0
        if pod.ejected_until is not None:
            _readmit(pod, now)

    def busy(self, pod: Pod, now: float, seconds: float) -> None:
        """A pod said 503. That is neither a failure nor a sign of health."""
        pod.busy_until = now + seconds

    def failed(self, pod: Pod, now: float) -> None:
        """A pod could not be reached, broke off, took too long or answered 5xx."""
        pod.failures += 1
        if pod.probing or (
            pod.ejected_until is None
            and pod.failures >= FAILURES_IN_A_ROW
            and (self.ejected() + 1) * 2 <= len(self._pods)
        ):
            self._eject(pod, now)

    def retry_after(self, task: Task, now: float) -> int:
        """Whole seconds after which the first of the busy pods takes requests again; at least one."""
        until = min((choice.pod.busy_until for choice in self._choices.get(task, ())), default=now)
        return max(1, math.ceil(until - now))

    def _least(self, choices: Sequence[Choice], now: float, tried: Collection[Pod]) -> Choice:
        """By rank; equals take turns, since each look starts with another one."""
        count = len(choices)
        if not tried:  # or a pod that every request leaves at once would be the first of every other request
            self._turn += 1
        start = self._turn % count
        best, lowest = choices[start], 4 * _RANK
        for offset in range(count):
            choice = choices[start + offset - count]
            pod = choice.pod
            rank = (_TRIED if pod in tried else pod.standing(now)) * _RANK + pod.outstanding
            if rank < lowest:
                best, lowest = choice, rank
        return best

    def _eject(self, pod: Pod, now: float) -> None:
        if pod.ejected_until is None and now - pod.well_since > _FORGIVEN_AFTER_SECONDS:
            pod.ejections = 0
        pod.ejected_until = now + min(_FIRST_EJECTION_SECONDS * 2**pod.ejections, _LONGEST_EJECTION_SECONDS)
        pod.ejections = min(pod.ejections + 1, 16)
        pod.probing = False
        self._on_ejected()


def _readmit(pod: Pod, now: float) -> None:
    pod.ejected_until = None
    pod.probing = False
    pod.failures = 0
    pod.well_since = now
