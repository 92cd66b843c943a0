"""A job as clients see it, in answers and in webhooks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiservice_gateway.models import timestamp
from aiservice_gateway.services.pricing import usage_of
from aiservice_gateway.stores.jobs import Job

LOCATION = "/v1/jobs/{}"


def location(job: str) -> str:
    """A job's path."""
    return LOCATION.format(job)


def render(job: Job, position: int | None = None) -> dict[str, Any]:
    """JSON.

    Args:
        job: Which.
        position: How many of the tenant's jobs are queued before it, where that is known.
    """
    content_type = next((value.decode("latin-1") for name, value in job.headers if name == b"content-type"), None)
    has_result = job.over and job.status is not None
    return {
        "id": job.id,
        "object": "job",
        "status": job.state,
        "task": job.task,
        "service": job.service,
        "created_at": _time(job.created_at),
        "started_at": _time(job.started_at),
        "finished_at": _time(job.finished_at),
        "deadline": _time(job.deadline),
        "expires_at": _time(job.expires_at) if job.over else None,
        "attempts": job.attempts,
        "position": position,
        "request_id": job.attempt,
        "result": {
            "url": f"{location(job.id)}/result",
            "status": job.status,
            "content_type": content_type,
            "bytes": job.output_bytes,
        }
        if has_result
        else None,
        "usage": usage_of(job.record) if job.over and job.record is not None else None,
        "error": None if job.problem is None else {"code": job.problem.code, "message": job.problem.message},
        "webhook": None
        if job.webhook is None
        else {"url": job.webhook, "status": job.webhook_state, "attempts": job.webhook_attempts},
    }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(datetime.fromtimestamp(seconds, UTC))
