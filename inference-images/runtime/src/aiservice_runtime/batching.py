"""Which pieces of work are computed together: compatible ones, the oldest request first, within a window.

    Job      one request on its way through the device: its pieces, and who waits for them
    Waiting  the jobs that have pieces to compute, in the order of their turns
    Batch    pieces that the device computes at once
    Rooms    how many pieces of a kind fit into the device's memory

Nothing here waits or computes, and the clock is passed in.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from aiservice_runtime.engine import Prepared, Task

_RETURN_SHARE, _RETURN_WINDOWS = 0.05, 5
"""How long a batch waits for clients to come back: a part of what the last batch took, and at most so many windows."""


@dataclass(frozen=True)
class Done:
    """What the device made of a request, and what it took."""

    results: list[Any]
    """One for each piece, in order; empty when they were streamed."""
    queue_seconds: float
    """From the queue to the device."""
    device_seconds: float
    """The request's share of what the device computed: a batch's seconds are shared by its pieces."""


@dataclass(eq=False)
class Job:
    """One prepared request on its way through the device thread."""

    task: Task[Any, Any, Any]
    prepared: Prepared[Any, Any]
    on_chunk: Callable[[Any], None] = lambda _: None
    """Called in the device thread with each chunk of a streamed answer."""
    future: Future[Done] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)
    started: float | None = None
    """When the device began with it."""
    device_seconds: float = 0.0
    results: dict[int, Any] = field(default_factory=dict)
    left: deque[int] = field(default_factory=deque)
    """Pieces that are in no batch yet."""
    _gone: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.left.extend(range(len(self.prepared.pieces)))

    @property
    def group(self) -> Hashable:
        """Jobs of one group may share a batch; None: nobody shares with this one."""
        if self.prepared.together is None or self.prepared.stream is not None:
            return None
        return (self.task.name, self.prepared.together)

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more. Any thread."""
        return self._gone.is_set() or self.future.done()

    @property
    def queue_seconds(self) -> float:
        """How long it was in the queue before the device began with it; 0 before that."""
        return 0.0 if self.started is None else self.started - self.submitted

    def abandon(self) -> None:
        """Says that nobody waits for it any more. Any thread, but not while the queue is being looked at."""
        self._gone.set()
        self.left.clear()


@dataclass(frozen=True)
class Batch:
    """Pieces of one task, as pairs of a job and the index of one of its pieces."""

    task: Task[Any, Any, Any]
    pieces: list[tuple[Job, int]]

    def jobs(self) -> Iterator[Job]:
        """Gives each job once, in order."""
        yield from dict.fromkeys(job for job, _ in self.pieces)

    @property
    def works(self) -> list[Any]:
        """What Task.run is given."""
        return [job.prepared.pieces[index] for job, index in self.pieces]

    def halves(self) -> tuple[Batch, Batch]:
        """Splits it in two; the first has the odd piece."""
        middle = (len(self.pieces) + 1) // 2
        return Batch(self.task, self.pieces[:middle]), Batch(self.task, self.pieces[middle:])


class Waiting:
    """The queue to the device. Not for several threads at once.

    Each job in turn leads a batch, which takes along what is compatible behind it; a job with more pieces than fit
    goes to the end of the queue with the rest of them. So nobody waits for more than one batch of each job before.
    """

    def __init__(self, window: float, limit: Callable[[Job], int]) -> None:
        """A batch that has room waits until its oldest job is `window` seconds old; `limit` is a job's room."""
        self._window = window
        self._limit = limit
        self._jobs: deque[Job] = deque()
        self._back_by = float("-inf")
        self._back = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> None:
        """Adds a job at the end."""
        self._jobs.append(job)

    def discard(self, job: Job) -> None:
        """Takes a job out; fine if it is not in."""
        if job in self._jobs:
            self._jobs.remove(job)

    def clear(self) -> list[Job]:
        """Takes all jobs out."""
        jobs = list(self._jobs)
        self._jobs.clear()
        return jobs

    def answered(self, now: float, *, requests: int, seconds: float) -> None:
        """Says that a batch has ended, which took so long for so many requests.

        Clients that were answered together come back together, one moment apart. Without a wait the first of them
        would be computed alone, and the others would wait for it.
        """
        self._back = requests if requests > 1 else 0
        self._back_by = now + min(_RETURN_SHARE * seconds, _RETURN_WINDOWS * self._window)

    def take(self, now: float, *, company: bool) -> Batch | float | None:
        """Returns the next batch, or the seconds to wait for more of it, or None when nothing waits.

        It is worth waiting only while there is `company`: requests that were admitted and are on their way; and for
        those who were just answered (see answered), until as many are there again.
        """
        if not self._jobs:
            return None
        head = self._jobs[0]
        room = self._room(head)
        chosen: list[tuple[Job, int]] = []
        for job in self._jobs:
            if job is head or (head.group is not None and job.group == head.group):
                chosen += [(job, index) for index in list(job.left)[: room - len(chosen)]]
            if len(chosen) == room:
                break
        coming = head.submitted + self._window - now if company else 0.0
        returning = self._back_by - now if len(self._jobs) < self._back else 0.0
        if head.group is not None and len(chosen) < room and max(coming, returning) > 0:
            return max(coming, returning)
        for job, _ in chosen:
            job.left.popleft()
        taken = dict.fromkeys(job for job, _ in chosen)
        rest = [job for job in taken if job.left]
        self._jobs = deque(job for job in self._jobs if job not in taken)
        self._jobs.extend(rest)
        return Batch(head.task, chosen)

    def turns_to_done(self) -> int:
        """Returns how many batches it takes until one of the jobs is complete, if none shares them; 0 without jobs."""
        turns = (math.ceil(len(job.left) / self._room(job)) for job in self._jobs)
        return min(((own - 1) * len(self._jobs) + place for place, own in enumerate(turns, 1)), default=0)

    def _room(self, job: Job) -> int:
        return self._limit(job) if job.group is not None else 1


class Rooms:
    """How many pieces fitted where a batch ran out of memory. Not for several threads at once.

    Requests choose the kind, so only so many are remembered. And each for a while only: others may have had the memory.
    """

    def __init__(self, *, kinds: int = 64, seconds: float = 600.0) -> None:
        """Remembers the newest `kinds`, each for `seconds`."""
        self._kinds = kinds
        self._seconds = seconds
        self._found: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def of(self, group: Hashable, now: float) -> int | None:
        """Returns the pieces of that group that fitted; None when nothing is known."""
        pieces, until = self._found.get(group, (None, now))
        return pieces if now < until else None

    def ran_out(self, group: Hashable, pieces: int, now: float) -> None:
        """Says that so many pieces, at least 2, did not fit: half of them may."""
        known = self.of(group, now)
        fits = pieces // 2 if known is None else min(pieces // 2, known)
        self._found[group] = (fits, now + self._seconds)
        self._found.move_to_end(group)
        if len(self._found) > self._kinds:
            self._found.popitem(last=False)
