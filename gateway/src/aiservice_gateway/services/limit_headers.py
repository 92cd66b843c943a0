"""A request's limits as response headers: `RateLimit` and `RateLimit-Policy`, and the older `x-ratelimit-*`.

The first two follow draft-ietf-httpapi-ratelimit-headers-11. It has words for requests and for concurrent requests, so
limits of units and of spend are not in them; `GET /api/limits` has all.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from aiservice_gateway.models import Limit, Measure
from aiservice_gateway.plans import MICROSECONDS, SCALES, Plan, Verdict

_QUOTA_UNITS = {Measure.REQUESTS: "requests", Measure.CONCURRENCY: "concurrent-requests"}
"""As the draft registers them (section 3.1.2)."""

_KEY_BYTES = 9


@dataclass(frozen=True, slots=True)
class LimitHeaders:
    """The parts that are the same for every request of a plan."""

    plan: Plan
    policy: str
    items: tuple[tuple[int, str, str], ...]
    """Of each limit that the draft has words for: its index, its quoted name, and its partition key as a parameter."""

    def admitted(self, verdict: Verdict) -> dict[str, str]:
        """The headers of an answer to a request that passed."""
        least, closest = None, 0
        items = []
        for index, name, key in self.items:
            used, free = verdict.states[2 * index], verdict.states[2 * index + 1]
            remaining = max(0, self.plan.maxima[index] - used)
            reset = f";t={whole_seconds(free)}" if free else ""
            items.append(f"{name};r={remaining}{reset}{key}")
            if self.plan.limits[index].measure is Measure.REQUESTS and (least is None or remaining < least):
                least, closest = remaining, index
        headers = {"ratelimit-policy": self.policy, "ratelimit": ", ".join(items)} if items else {}
        if least is None:
            return headers
        return headers | _older(self.plan.maxima[closest], least, whole_seconds(verdict.states[2 * closest + 1]))

    def refused(self, verdict: Verdict) -> dict[str, str]:
        """The headers of an answer to a request that did not pass: only the limit that refused it, until it will."""
        seconds = retry_after(verdict)
        headers = {}
        for index, name, key in self.items:
            if index == verdict.index:
                reset = f";t={seconds}" if self.plan.holds[index].window else ""
                headers = {"ratelimit-policy": self.policy, "ratelimit": f"{name};r=0{reset}{key}"}
        limit = self.plan.limits[verdict.index]
        return headers | _older(plain(limit.measure, self.plan.maxima[verdict.index]), 0, seconds)


def limit_headers(plan: Plan, secret: bytes) -> LimitHeaders:
    """Prepares the headers of a plan.

    Args:
        plan: The limits.
        secret: Makes partition keys that tell nobody the tenant, and are the same in every gateway.
    """
    policies, items = [], []
    for index, (limit, maximum) in enumerate(zip(plan.limits, plan.maxima, strict=True)):
        if unit := _QUOTA_UNITS.get(limit.measure):
            name = f'"{_name(limit)}"'
            key = f";pk={_partition_key(plan.tenant, limit, secret)}"
            window = f";w={limit.window_seconds}" if limit.window_seconds else ""
            policies.append(f'{name};q={maximum};qu="{unit}"{window}{key}')
            items.append((index, name, key))
    return LimitHeaders(plan, ", ".join(policies), tuple(items))


def retry_after(verdict: Verdict) -> int:
    """Seconds after which a refused request passes; at least one."""
    return max(1, whole_seconds(verdict.wait))


def whole_seconds(microseconds: float) -> int:
    """A time in seconds, rounded up: after them it is certain."""
    return math.ceil(microseconds / MICROSECONDS)


def plain(measure: Measure, amount: int) -> int | float:
    """An amount as people write it: whole requests, units, dollars."""
    scale = SCALES[measure]
    return amount // scale if amount % scale == 0 else amount / scale


def _older(limit: float, remaining: int, reset: int) -> dict[str, str]:
    return {
        "x-ratelimit-limit": str(limit),
        "x-ratelimit-remaining": str(remaining),
        "x-ratelimit-reset": str(reset),
    }


def _name(limit: Limit) -> str:
    parts: Sequence[str] = (limit.task or "all", limit.measure)
    return "-".join(parts) + (f"-{limit.window_seconds}s" if limit.window_seconds else "")


def _partition_key(tenant: str, limit: Limit, secret: bytes) -> str:
    """A byte sequence of RFC 9651 (section 3.3.5)."""
    digest = hashlib.blake2b(f"{limit.task or '*'}:{tenant}".encode(), key=secret, digest_size=_KEY_BYTES)
    return f":{base64.b64encode(digest.digest()).decode()}:"
