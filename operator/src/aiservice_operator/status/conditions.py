"""Conditions: what the checks found, merged with what was said before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from aiservice_api.v1alpha1 import Condition, ConditionStatus, LastFailure
from aiservice_operator.failures import Failure

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN

MESSAGE_LENGTH = 4096
"""Bounds what a status may grow to; a scheduler's or a container's words can be long."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was found of one aspect.

    True: it is so. False: it is not, and somebody has to do something. Unknown: it is being worked on.
    """

    status: ConditionStatus
    reason: str
    message: str


def yes(reason: str, message: str) -> Check:
    """The aspect is as it should be."""
    return Check(TRUE, reason, message)


def no(reason: str, message: str) -> Check:
    """The aspect is not as it should be; the message says what to do."""
    return Check(FALSE, reason, message)


def pending(reason: str, message: str) -> Check:
    """The aspect is being worked on."""
    return Check(UNKNOWN, reason, message)


def merge(
    previous: Sequence[Condition], found: Sequence[tuple[str, Check]], generation: int, now: datetime
) -> list[Condition]:
    """Returns the conditions to report: a time of transition changes only where the status does."""
    known = {condition.type: condition for condition in previous}
    merged = []
    for name, check in found:
        before = known.get(name)
        same = before is not None and before.status is check.status
        merged.append(
            Condition(
                type=name,
                status=check.status,
                observed_generation=generation,
                last_transition_time=before.last_transition_time if before is not None and same else now,
                reason=check.reason,
                message=check.message[:MESSAGE_LENGTH],
            )
        )
    return merged


def find(conditions: Sequence[Condition], name: str) -> Condition | None:
    """Returns a condition by type."""
    return next((condition for condition in conditions if condition.type == name), None)


def last_failure(failure: Failure | None, previous: LastFailure | None) -> LastFailure | None:
    """Returns what to report as the last failure: the present one, or what went wrong before."""
    if failure is None:
        return previous
    return LastFailure(
        reason=failure.reason, message=failure.message[:MESSAGE_LENGTH], object=failure.object, time=failure.time
    )
