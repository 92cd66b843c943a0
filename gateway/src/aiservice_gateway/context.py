"""What one request gathers on its way, for its answer's headers and its line in the log."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from opentelemetry.trace import Span
from starlette.types import Scope

from aiservice_gateway.ids import new_request_id
from aiservice_gateway.models import UsageRecord

_KEY = "aiservice_gateway"


class Keeper(Protocol):
    """Keeps the answer of a request that may be asked for again."""

    async def keep(self, record: UsageRecord, last: bytes) -> None:
        """Called once, when an answer is complete and before it is charged.

        Args:
            record: What will be charged.
            last: The end of the answer's body, which nobody was sent yet.

        Raises:
            GatewayError: another answer counts, or this one cannot be kept: it ends here and costs nothing.
        """


@dataclass(frozen=True, slots=True)
class Route:
    """What logs and metrics call a request that FastAPI is not asked about; the scope has it under `route`."""

    path: str


@dataclass(slots=True)
class RequestContext:
    """Lives in the ASGI scope, from the outermost middleware to the end of the answer."""

    request_id: str = field(default_factory=new_request_id)
    started: float = field(default_factory=time.perf_counter)
    headers: dict[str, str] = field(default_factory=dict)
    """Added to the answer, whoever makes it."""
    tenant: str | None = None
    service: str | None = None
    error: str | None = None
    """Code of the error that is answered."""
    status: int = 0
    """Of the answer; 0 until it begins."""
    openai: bool = False
    """Whether errors are answered in OpenAI's shape."""
    span: Span | None = None
    """The request's, where traces are recorded."""
    keeper: Keeper | None = None
    """Where the answer has to be safe before it is charged."""
    first_id: str | None = None
    """Of a request with an idempotency key: the same each time that it is tried after its gateway died."""

    def put(self, scope: Scope) -> None:
        """Makes this the context of a request."""
        scope[_KEY] = self


def context_of(scope: Scope) -> RequestContext:
    """The context of a request."""
    context: RequestContext = scope[_KEY]
    return context
