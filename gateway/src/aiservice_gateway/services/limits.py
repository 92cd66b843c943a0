"""Limits: what a tenant may use. A service here is a task, as in the usage table.

Redis decides for all gateways together. While it is away each gateway decides by itself, starting from what it let
pass before; so no limit is ever lifted, and with several gateways one may be exceeded by what each lets pass alone.
Redis is told of that when it answers again, before it decides anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from aiservice_api.tasks import Task
from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.models import Identity, Limit, Measure, Policy, Quota, Standing
from aiservice_gateway.plans import (
    ASSUMED,
    MICROSECONDS,
    SCALES,
    Code,
    Hold,
    Month,
    Plan,
    Reservation,
    Verdict,
    amount,
    limit_key,
    make_plan,
    month_of,
    window_of,
)
from aiservice_gateway.services.backlog import Backlog
from aiservice_gateway.services.limit_headers import LimitHeaders, limit_headers, retry_after, whole_seconds
from aiservice_gateway.stores.memory import MemoryLimiter
from aiservice_gateway.stores.redis import RedisStore

_log = logging.getLogger(__name__)

SpentOf = Callable[[str, Task | None, int, int], Awaitable[Decimal]]
"""Dollars that a tenant spent on a task (None: on all) from a time (inclusive) to another (exclusive), in microseconds
since the epoch, by the database. Raises StoreUnavailableError where it does not know."""

_KNOWN_PLANS: Final = 10_000
_MOST_SUMS: Final = 8
_ASK_AGAIN_SECONDS: Final = 5.0
"""After the database did not say what was spent, time in which it is not asked again."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer to one request."""

    reservation: Reservation
    headers: LimitHeaders
    verdict: Verdict

    @property
    def allowed(self) -> bool:
        """Whether it passes."""
        return self.verdict.code == Code.ADMITTED

    @property
    def retry_after(self) -> int:
        """Seconds after which a refused request passes."""
        return retry_after(self.verdict)

    @property
    def refused_by(self) -> Limit:
        """The limit that refused it, of several the one that does so for longest."""
        return self.headers.plan.limits[self.verdict.index]

    def response_headers(self) -> dict[str, str]:
        """What the answer says about the limits."""
        return self.headers.admitted(self.verdict) if self.allowed else self.headers.refused(self.verdict)

    def refunded_headers(self) -> dict[str, str]:
        """What the answer says about the limits when the request was taken back."""
        states = list(self.verdict.states)
        for index, hold in enumerate(self.reservation.holds):
            states[2 * index] -= hold.amount
        return self.headers.admitted(Verdict(Code.ADMITTED, self.verdict.now, states=states))


class Limits:
    """Admits requests, and says where tenants stand."""

    def __init__(
        self,
        policy_of: Callable[[str], Policy],
        local: MemoryLimiter,
        shared: RedisStore | None,
        backlog: Backlog,
        *,
        spent_of: SpentOf,
        reserved_units: Mapping[Task, Decimal],
        prices: Mapping[Task, Decimal],
        secret: bytes,
    ) -> None:
        """Wires it up.

        Args:
            policy_of: The policy of a tenant; another object when it has changed.
            local: This process' own count.
            shared: Redis, where there is one.
            backlog: What Redis has to be told later.
            spent_of: Sums up what the database knows.
            reserved_units: By task, the units that a request holds before they are measured.
            prices: By task, dollars for one unit.
            secret: At most 64 bytes; makes the partition keys of the `RateLimit` headers.
        """
        self._policy_of = policy_of
        self._local = local
        self._shared = shared
        self._backlog = backlog
        self._spent_of = spent_of
        self._reserved_units = reserved_units
        self._prices = prices
        self._secret = secret
        self._month = month_of(int(time.time() * MICROSECONDS))
        self._plans: dict[tuple[str, Task], tuple[Policy, LimitHeaders]] = {}
        self._sums: dict[tuple[str, int, int], asyncio.Task[int]] = {}
        self._ask_database_at = 0.0

    async def admit(self, identity: Identity, task: Task, model: str | None, request_id: str) -> Admission:
        """Holds what a request may take, or refuses it. Never fails."""
        reservation = Reservation(request_id, identity.tenant, identity.user, task, model, ())
        shared = self._shared
        if shared is not None and shared.available:
            try:
                admission = await self._decide(reservation, shared.admit)
            except StoreUnavailableError:
                pass
            else:
                if admission.allowed:
                    self._local.note(admission.headers.plan, reservation, admission.verdict)
                return admission

        async def here(plan: Plan, reservation: Reservation, bases: Sequence[str]) -> Verdict:
            return self._local.admit(plan, reservation, bases)

        admission = await self._decide(reservation, here)
        if admission.allowed:
            self._backlog.admitted(admission.headers.plan, reservation)
        return admission

    async def standings(self, tenant: str) -> Sequence[Standing]:
        """Where a tenant stands with each of its limits, in the policy's order."""
        limits = self._policy_of(tenant).limits
        month = self._month = month_of(int(time.time() * MICROSECONDS))
        holds = [Hold(limit.measure, limit_key(tenant, limit, month), window_of(limit), 0) for limit in limits]
        now, states = await self._states(holds)
        standings = []
        for index, limit in enumerate(limits):
            used, free = states[2 * index], states[2 * index + 1]
            if limit.measure is Measure.SPEND:
                free = month.end - now
                if used < 0:
                    used = await self._spent(tenant, limit, month, month.end) or self._local.spent(holds[index].key)
            left = max(0, amount(limit.measure, limit.maximum) - used)
            standings.append(Standing(limit, Decimal(left) / SCALES[limit.measure], whole_seconds(free)))
        return standings

    async def quotas(self, tenant: str) -> Mapping[Task, Quota]:
        """By task, the limit of requests of which the fewest are left; tasks without one are left out."""
        quotas: dict[Task, Quota] = {}
        for standing in await self.standings(tenant):
            limit = standing.limit
            if limit.measure is not Measure.REQUESTS:
                continue
            quota = Quota(
                int(limit.maximum), int(standing.remaining), standing.reset_seconds, limit.window_seconds or 0
            )
            for task in Task if limit.task is None else (limit.task,):
                if task not in quotas or quota.remaining < quotas[task].remaining:
                    quotas[task] = quota
        return quotas

    async def _states(self, holds: Sequence[Hold]) -> tuple[int, Sequence[int]]:
        if self._shared is not None and self._shared.available:
            try:
                return await self._shared.standings(holds)
            except StoreUnavailableError:
                pass
        return self._local.standings(holds)

    async def _decide(
        self, reservation: Reservation, ask: Callable[[Plan, Reservation, Sequence[str]], Awaitable[Verdict]]
    ) -> Admission:
        """Asks a limiter, as often as it needs to know something first."""
        bases: dict[int, str] = {}
        sums = 0
        while True:
            headers = self._headers(reservation.tenant, reservation.task)
            plan = headers.plan
            reservation.holds = plan.holds
            given = [bases.get(index, "") for index in range(len(plan.holds))] if bases else ("",) * len(plan.holds)
            verdict = await ask(plan, reservation, given)
            if verdict.code <= Code.ADMITTED:
                reservation.admitted = verdict.now
                return Admission(reservation, headers, verdict)
            if verdict.code == Code.OTHER_MONTH:
                self._month = month_of(verdict.now)
            else:
                sums += 1
                bases[verdict.index] = await self._base(plan, verdict, trusted=sums <= _MOST_SUMS)

    def _headers(self, tenant: str, task: Task) -> LimitHeaders:
        """The plan for a tenant's requests for a task; made anew when its policy or the month has changed."""
        policy = self._policy_of(tenant)
        known = self._plans.get((tenant, task))
        if known is not None and known[0] is policy and known[1].plan.month is self._month:
            return known[1]
        if len(self._plans) >= _KNOWN_PLANS:
            self._plans.clear()
        plan = make_plan(
            tenant,
            policy.limits,
            reserved_units=self._reserved_units,
            price=self._prices[task],
            task=task,
            month=self._month,
        )
        headers = limit_headers(plan, self._secret)
        self._plans[tenant, task] = policy, headers
        return headers

    async def _base(self, plan: Plan, verdict: Verdict, *, trusted: bool) -> str:
        """What was spent in the month before the limiter counted it: to keep, or to assume while nobody can say.

        Args:
            plan: The limits.
            verdict: Which of them it is for.
            trusted: False where sums have become outdated while they were made, again and again.
        """
        limit = plan.limits[verdict.index]
        spent = await self._spent(plan.tenant, limit, plan.month, verdict.wait)
        if spent is None:
            return f"{ASSUMED} {self._local.spent(plan.holds[verdict.index].key)}"
        return f"{verdict.version if trusted else ASSUMED} {spent}"

    async def _spent(self, tenant: str, limit: Limit, month: Month, until: int) -> int | None:
        """The amount that the database knows; None where it does not answer. Who asks at once shares one sum."""
        if time.monotonic() < self._ask_database_at:
            return None
        key = (limit_key(tenant, limit, month), month.start, until)
        asking = self._sums.get(key)
        if asking is None:
            asking = self._sums[key] = asyncio.create_task(self._sum(tenant, limit, month.start, until))
            asking.add_done_callback(lambda _: self._sums.pop(key))
        try:
            return await asyncio.shield(asking)
        except StoreUnavailableError as error:
            _log.warning("What was spent this month cannot be read, and is counted from what is known: %s", error)
            self._ask_database_at = time.monotonic() + _ASK_AGAIN_SECONDS
            return None

    async def _sum(self, tenant: str, limit: Limit, start: int, end: int) -> int:
        return amount(Measure.SPEND, await self._spent_of(tenant, limit.task, start, end))
