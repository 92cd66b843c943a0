"""The table of jobs: a queue whose workers hold leases, and the webhooks that tell of jobs that are over.

A row says who works on it (`attempt`, an id of its own for each try, and `lease_until`). Every change that a worker
makes names its attempt, so one that has lost its lease to another changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from aiservice_api.tasks import Task
from aiservice_gateway.models import UsageRecord
from aiservice_gateway.stores.database import Database, Statement, fetch
from aiservice_gateway.stores.pieces import drop


class State(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """Its deadline passed before it had an answer."""


class WebhookState(StrEnum):
    """Where the message about a job that is over is."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is to be done."""

    id: str
    tenant: str
    user: str | None
    task: Task
    service: str | None
    webhook: str | None
    content_type: str
    input_bytes: int
    deadline_seconds: float
    trace: str | None
    """Place of the request that hands it in in its trace, as `traceparent` has it, where traces are recorded."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a job has no result, or none that is one."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Job:
    """One row. Times are seconds since the epoch."""

    id: str
    tenant: str
    user: str | None
    task: Task
    service: str | None
    content_type: str
    input_bytes: int
    state: State
    attempts: int
    attempt: str | None
    """Id of the request that works on it, or whose answer is the result."""
    created_at: float
    started_at: float | None
    finished_at: float | None
    deadline: float
    expires_at: float
    status: int | None
    """Of the answer."""
    headers: Sequence[tuple[bytes, bytes]]
    """Of the answer."""
    output_bytes: int | None
    record: UsageRecord | None
    """What the answer is charged as; set before it is."""
    problem: Problem | None
    webhook: str | None
    webhook_state: WebhookState | None
    webhook_attempts: int
    trace: str | None
    """As of `NewJob`."""

    @property
    def over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state not in {State.QUEUED, State.RUNNING}


@dataclass(frozen=True, slots=True)
class Terms:
    """How jobs are worked on."""

    lease_seconds: float
    most_attempts: int
    kept_seconds: float
    most_open: int
    """Jobs of a tenant that are not over."""


_COLUMNS: Final = """id, tenant, user_id, task, service, content_type, input_bytes, state, attempts, attempt,
created_at, started_at, finished_at, deadline, expires_at, status, headers, output_bytes, record, error,
webhook, webhook_state, webhook_attempts, trace"""

_OVER: Final = """finished_at = {now}, webhook_after = {now},
webhook_state = CASE WHEN webhook IS NULL THEN NULL ELSE 'waiting' END"""

_ADD: Final = """
INSERT INTO {jobs} (id, tenant, user_id, task, service, webhook, content_type, input_bytes, state,
                    created_at, run_after, deadline, expires_at, trace)
SELECT $1, $2, $3, $4, $5, $6, $7, CAST($8 AS bigint), 'queued', {now}, {now}, {now} + $9, {now} + $9 + $10, $12
WHERE (SELECT count(*) FROM {jobs} WHERE tenant = $2 AND state IN ('queued', 'running')) < CAST($11 AS bigint)
ON CONFLICT (id) DO NOTHING
RETURNING id
"""
_CLAIM: Final = f"""
WITH busy AS (
  SELECT tenant, count(*) AS jobs FROM {{jobs}} WHERE state = 'running' AND lease_until > {{now}} GROUP BY tenant
)
UPDATE {{jobs}} SET state = 'running', worker = $1, lease_until = {{now}} + $3, attempts = attempts + 1,
  attempt = CASE WHEN record IS NULL THEN $2 ELSE attempt END, started_at = coalesce(started_at, {{now}})
WHERE id = (
  SELECT job.id FROM {{jobs}} AS job LEFT JOIN busy ON busy.tenant = job.tenant
  WHERE (job.state = 'queued' AND job.run_after <= {{now}} AND job.deadline > {{now}})
     OR (job.state = 'running' AND job.lease_until < {{now}})
  ORDER BY coalesce(busy.jobs, 0), job.created_at
  LIMIT 1 {{locked}}
)
RETURNING {_COLUMNS}
"""  # noqa: S608 - constants
_RENEW: Final = """
UPDATE {jobs} SET lease_until = {now} + $3 WHERE id = $1 AND attempt = $2 AND state = 'running' RETURNING cancelled
"""
_KEEP: Final = """
UPDATE {jobs} SET record = $3, status = CAST($4 AS integer), headers = $5, output_bytes = CAST($6 AS bigint)
WHERE id = $1 AND attempt = $2 AND state = 'running' RETURNING id
"""
_FINISH: Final = f"""
UPDATE {{jobs}} SET state = $3, error = $4, expires_at = {{now}} + $5, {_OVER}
WHERE id = $1 AND attempt = $2 AND state = 'running' RETURNING id
"""  # noqa: S608 - constants
_REQUEUE: Final = """
UPDATE {jobs} SET state = 'queued', run_after = {now} + $3, attempts = attempts - CAST($4 AS integer)
WHERE id = $1 AND attempt = $2 AND state = 'running' RETURNING id
"""
_CANCEL_QUEUED: Final = f"""
UPDATE {{jobs}} SET state = 'cancelled', expires_at = {{now}} + $2, {_OVER}
WHERE id = $1 AND state = 'queued' RETURNING id
"""  # noqa: S608 - constants
_CANCEL_RUNNING: Final = "UPDATE {jobs} SET cancelled = 1 WHERE id = $1 AND state = 'running' RETURNING attempt"
_EXPIRE: Final = f"""
UPDATE {{jobs}} SET state = 'expired', {_OVER} WHERE state = 'queued' AND deadline <= {{now}} RETURNING id
"""  # noqa: S608 - constants
_GET: Final = f"SELECT {_COLUMNS} FROM {{jobs}} WHERE id = $1"  # noqa: S608 - constants
_LIST: Final = f"""
SELECT {_COLUMNS} FROM {{jobs}}
WHERE (CAST($1 AS text) IS NULL OR tenant = $1) AND (CAST($2 AS text) IS NULL OR id < $2)
  AND (CAST($3 AS text) IS NULL OR state = $3)
ORDER BY id DESC LIMIT CAST($4 AS bigint)
"""  # noqa: S608 - constants
_AHEAD: Final = """
SELECT count(*) FROM {jobs} WHERE tenant = $1 AND state = 'queued' AND created_at < $2
"""
_OPEN: Final = "SELECT state, count(*) FROM {jobs} WHERE state IN ('queued', 'running') GROUP BY state"
_CLAIM_MESSAGE: Final = f"""
UPDATE {{jobs}} SET webhook_after = {{now}} + $1, webhook_attempts = webhook_attempts + 1
WHERE id = (
  SELECT job.id FROM {{jobs}} AS job WHERE job.webhook_state = 'waiting' AND job.webhook_after <= {{now}}
  ORDER BY job.webhook_after LIMIT 1 {{locked}}
)
RETURNING {_COLUMNS}
"""  # noqa: S608 - constants
_NOTE_MESSAGE: Final = """
UPDATE {jobs} SET webhook_state = $3, webhook_after = {now} + $4, webhook_problem = $5
WHERE id = $1 AND webhook_attempts = CAST($2 AS integer) AND webhook_state = 'waiting' RETURNING id
"""


class Jobs:
    """The jobs of all gateways that share the database. Every method raises StoreUnavailableError when it is away."""

    def __init__(self, database: Database, worker: str, terms: Terms) -> None:
        """Wires it up.

        Args:
            database: Where they are.
            worker: Name of this gateway process.
            terms: How they are worked on.
        """
        self.database = database
        self.terms = terms
        self._worker = worker

    async def add(self, job: NewJob, rest: Statement) -> bool:
        """Queues a job, with the last piece of its input; one that is there already stays as it is.

        Returns:
            False where the tenant has too many.
        """
        answers = await self.database.run(
            (
                _ADD,
                (
                    *(job.id, job.tenant, job.user, job.task.value, job.service, job.webhook),
                    *(job.content_type, job.input_bytes, job.deadline_seconds),
                    *(self.terms.kept_seconds, self.terms.most_open, job.trace),
                ),
            ),
            rest,
        )
        return bool(answers[0]) or await self.get(job.id) is not None

    async def claim(self, attempt: str) -> Job | None:
        """Takes a job that is due, of the tenant that has the fewest at work; one whose worker died counts as due.

        Args:
            attempt: Id of the request that this try makes.
        """
        rows = await fetch(self.database, _CLAIM, self._worker, attempt, self.terms.lease_seconds)
        return _job(rows[0]) if rows else None

    async def renew(self, job: Job) -> bool | None:
        """Says that it is worked on; whether it is to be cancelled, or None where it is another's by now."""
        rows = await fetch(self.database, _RENEW, job.id, job.attempt, self.terms.lease_seconds)
        return bool(rows[0][0]) if rows else None

    async def keep(
        self,
        job: Job,
        record: UsageRecord,
        *,
        status: int,
        headers: Sequence[tuple[bytes, bytes]],
        size: int,
        rest: Statement,
    ) -> bool:
        """Keeps an answer with the last piece of its body, before it is charged; False where it is another's by now."""
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        values = (job.id, job.attempt, record.to_wire().decode(), status, orjson.dumps(pairs).decode(), size)
        return bool((await self.database.run((_KEEP, values), rest))[0])

    async def finish(self, job: Job, state: State, problem: Problem | None = None) -> bool:
        """Ends a job; False where it is another's by now."""
        error = None if problem is None else orjson.dumps([problem.code, problem.message]).decode()
        done = await fetch(self.database, _FINISH, job.id, job.attempt, state.value, error, self.terms.kept_seconds)
        if done:
            await fetch(self.database, *_flat(drop(job.id)))  # its input
        return bool(done)

    async def requeue(self, job: Job, seconds: float, *, counted: bool) -> None:
        """Lets a job wait for another try.

        Args:
            job: Which.
            seconds: How long at least.
            counted: Whether this try counts among those that it may have.
        """
        await fetch(self.database, _REQUEUE, job.id, job.attempt, seconds, 0 if counted else 1)

    async def cancel(self, job: str) -> str | None:
        """Ends a job that is queued, and asks the worker of one that runs to end it; then its attempt's id."""
        if await fetch(self.database, _CANCEL_QUEUED, job, self.terms.kept_seconds):
            await fetch(self.database, *_flat(drop(job)))
            return None
        rows = await fetch(self.database, _CANCEL_RUNNING, job)
        return str(rows[0][0]) if rows else None

    async def expire(self) -> int:
        """Ends queued jobs whose deadline has passed; how many."""
        return len(await fetch(self.database, _EXPIRE))

    async def get(self, job: str) -> Job | None:
        """One job."""
        rows = await fetch(self.database, _GET, job)
        return _job(rows[0]) if rows else None

    async def list(self, tenant: str | None, after: str | None, state: State | None, limit: int) -> Sequence[Job]:
        """The newest jobs.

        Args:
            tenant: Whose; None: all.
            after: Only those that are older than this one.
            state: Only those.
            limit: Most.
        """
        rows = await fetch(self.database, _LIST, tenant, after, None if state is None else state.value, limit)
        return [_job(row) for row in rows]

    async def ahead(self, job: Job) -> int:
        """How many of its tenant's jobs are queued before a job."""
        return int((await fetch(self.database, _AHEAD, job.tenant, job.created_at))[0][0])

    async def open(self) -> dict[State, int]:
        """How many jobs are queued and running."""
        counted = {State(state): int(count) for state, count in await fetch(self.database, _OPEN)}
        return {State.QUEUED: 0, State.RUNNING: 0} | counted

    async def claim_message(self, seconds: float) -> Job | None:
        """Takes a job whose webhook is due; nobody else does for a time."""
        rows = await fetch(self.database, _CLAIM_MESSAGE, seconds)
        return _job(rows[0]) if rows else None

    async def note_message(self, job: Job, state: WebhookState, seconds: float, problem: str | None) -> None:
        """Notes how the delivery of a webhook went, and when it is tried again."""
        await fetch(self.database, _NOTE_MESSAGE, job.id, job.webhook_attempts, state.value, seconds, problem)


def _flat(statement: Statement) -> tuple[Any, ...]:
    return statement[0], *statement[1]


def _job(row: tuple[Any, ...]) -> Job:
    name, tenant, user, task, service, content_type, size, state, attempts, attempt, *more = row
    created, started, finished, deadline, expires, status, headers, output, record, error, *hook = more
    webhook, webhook_state, webhook_attempts, trace = hook
    return Job(
        id=name,
        tenant=tenant,
        user=user,
        task=Task(task),
        service=service,
        content_type=content_type,
        input_bytes=size,
        state=State(state),
        attempts=attempts,
        attempt=attempt,
        created_at=created,
        started_at=started,
        finished_at=finished,
        deadline=deadline,
        expires_at=expires,
        status=status,
        headers=[(one.encode("latin-1"), two.encode("latin-1")) for one, two in orjson.loads(headers or "[]")],
        output_bytes=output,
        record=None if record is None else UsageRecord.from_wire(record),
        problem=None if error is None else Problem(*orjson.loads(error)),
        webhook=webhook,
        webhook_state=None if webhook_state is None else WebhookState(webhook_state),
        webhook_attempts=webhook_attempts,
        trace=trace,
    )
