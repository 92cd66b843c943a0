"""Brings a request to a pod of its service: chooses one, tries another where that is safe, and judges how each did.

What is tried again, always before the first byte of an answer, and within the request's own time:

connection not made     nothing of the request was sent. On another pod, or once more on the only one.
503                     the service refused to begin. On another pod that is well, if all of the body can still be sent.

Nothing else. A connection that breaks after the request was sent may have broken because of the request, and an engine
may have worked on it: to send it again would cost twice, or take the next pod down as well.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from aiservice_api.tasks import Task
from aiservice_gateway.context import RequestContext
from aiservice_gateway.errors import UnavailableError, UpstreamFailedError
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.services.backends import Backend
from aiservice_gateway.services.balancer import Balancer, Choice, Pod
from aiservice_gateway.services.connection import Answer, UnreachedError, WireError
from aiservice_gateway.services.pool import Pool
from aiservice_gateway.services.upload import Body, Upload, repeatable
from aiservice_gateway.services.upstream import note_failure, retry_after
from aiservice_gateway.telemetry import Tracing

_log = logging.getLogger(__name__)

_MOST_TRIES = 3
_BUSY = UnavailableError.status


@dataclass(frozen=True, slots=True)
class Errand:
    """What is to be brought where."""

    backend: Backend
    task: Task
    body: Body
    headers: Mapping[str, str]
    upload: Upload
    context: RequestContext


class Delivered:
    """An answer that has begun. As a context manager it lets go of the pod and of the connection."""

    def __init__(self, response: Answer, balancer: Balancer, pod: Pod) -> None:
        self.response = response
        self._balancer = balancer
        self._pod = pod

    async def __aenter__(self) -> Delivered:
        """Gives itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go."""
        self._balancer.release(self._pod)
        self.response.release()

    def broke_off(self) -> None:
        """The pod did not end its answer."""
        self._balancer.failed(self._pod, time.monotonic())


class Delivery:
    """Sends requests to pods."""

    def __init__(self, pool: Pool, metrics: Metrics, tracing: Tracing | None) -> None:
        self._pool = pool
        self._metrics = metrics
        self._tracing = tracing

    async def send(self, errand: Errand) -> Delivered:
        """Sends a request, and returns when its answer has begun.

        Raises:
            UnavailableError: no pod can be reached, or those that can are busy.
            UpstreamFailedError: the pod broke off without an answer.
            ClientGoneError, GatewayError: what reading the body raised.
        """
        tried: list[Pod] = []
        while True:
            choice = errand.backend.balancer.choose(errand.task, time.monotonic(), tried)
            tried.append(choice.pod)
            delivered = await self._attempt(errand, choice, tried)
            if delivered is not None:
                return delivered

    async def _attempt(self, errand: Errand, choice: Choice, tried: Sequence[Pod]) -> Delivered | None:
        """One try; None: try again."""
        balancer, pod, kept = errand.backend.balancer, choice.pod, False
        try:
            began = time.monotonic()
            response = await self._post(errand, f"{choice.url}/api/{errand.task}", len(tried) - 1)
            if response.status == _BUSY:
                await self._put_off(errand, response, tried)
                return None
            now = time.monotonic()
            if response.status >= 500:
                balancer.failed(pod, now)
            else:
                balancer.succeeded(pod, now)
            self._metrics.upstream_latency.labels(errand.task).observe(now - began)
            kept = True
            return Delivered(response, balancer, pod)
        except UnreachedError as error:
            balancer.failed(pod, time.monotonic())
            _log.warning("A pod of the service %s cannot be reached: %s", errand.backend.service.key, error)
            if self._again(errand, tried, "unreached", sole=len(tried) == 1):
                return None
            raise UnavailableError("The service cannot be reached at the moment: try again.") from error
        except WireError as error:
            raise _broken(errand, pod, error) from error
        except asyncio.CancelledError:
            if errand.upload.complete and not errand.upload.gone:  # it took too long
                balancer.failed(pod, time.monotonic())
            raise
        finally:
            if not kept:
                balancer.release(pod)

    async def _post(self, errand: Errand, url: str, resent: int) -> Answer:
        span = errand.context.span
        if self._tracing is None or span is None:
            return await self._pool.request("POST", url, errand.headers, errand.body)
        with self._tracing.attempt(span, url, resent) as attempt:
            response = await self._pool.request("POST", url, {**errand.headers, **attempt.headers}, errand.body)
            attempt.answered(response.status)
            return response

    async def _put_off(self, errand: Errand, response: Answer, tried: Sequence[Pod]) -> None:
        """Deals with a 503: returns to try again.

        Raises:
            UnavailableError: there is nobody else to ask.
        """
        balancer, backend = errand.backend.balancer, errand.backend
        try:
            balancer.busy(tried[-1], time.monotonic(), retry_after(response))
            if self._again(errand, tried, "busy", sole=False):
                return
            await note_failure(response, backend.service.name, errand.context.request_id)
        finally:
            response.release()
        raise UnavailableError(
            f"The service {backend.service.name} is busy or not ready: try again later.",
            retry_after=balancer.retry_after(errand.task, time.monotonic()),
        )

    def _again(self, errand: Errand, tried: Sequence[Pod], why: str, *, sole: bool) -> bool:
        """Whether to try again: on another pod, or, where `sole` says so, on whichever there is."""
        if len(tried) >= _MOST_TRIES or not repeatable(errand.body):
            return False
        if not sole and not errand.backend.balancer.another(errand.task, time.monotonic(), tried):
            return False
        self._metrics.retries.labels(errand.backend.service.key, why).inc()
        return True


def _broken(errand: Errand, pod: Pod, error: WireError) -> Exception:
    """What to raise when a connection broke after the request was sent, or was being sent."""
    if errand.upload.failure is not None:
        return errand.upload.failure
    errand.backend.balancer.failed(pod, time.monotonic())
    _log.warning("The service %s broke off: %s", errand.backend.service.key, error)
    return UpstreamFailedError("The service broke off without an answer. The gateway's log has the request id.")
