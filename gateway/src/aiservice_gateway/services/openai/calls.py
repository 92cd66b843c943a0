"""One call of the OpenAI-compatible API: the proxy's call between a translated request and a translated answer.

Admission, limits, retries and the usage record are the proxy's, as on the services' own routes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from aiservice_gateway.errors import GatewayError, ModelNotFoundError, NotFoundError, RequestTimeoutError
from aiservice_gateway.services.openai.answers import AnswerChannel, Answered, Rewriter, broken, refusal
from aiservice_gateway.services.openai.bodies import Body
from aiservice_gateway.services.pricing import read_measured
from aiservice_gateway.services.proxy import Exchange
from aiservice_gateway.services.upload import ClientGoneError

_log = logging.getLogger(__name__)

_CLIENT_ERRORS = 400

_SAME = ("guidance", "image", "language", "mask", "n", "negative_prompt", "prompt", "seed", "size", "speed", "steps")
NAMES = {name: name for name in (*_SAME, "strength", "stream", "style", "voice")} | {
    "audio": "file",
    "file": "file",
    "format": "response_format",
    "text": "input",
    "timestamps": "timestamp_granularities",
}
"""OpenAI's names of the services' fields, as their sentences begin with them."""


@dataclass(frozen=True, slots=True)
class Translation:
    """What an answer is translated with."""

    body: Body
    request_id: str
    service: str

    def rewriter(self, status: int, headers: Headers) -> Rewriter:
        """For an answer of this status and with these headers."""
        if status >= _CLIENT_ERRORS:
            return refusal(status, NAMES)
        if self.body.parameters is None:
            raise broken()  # an answer before the request's end
        try:
            measured = read_measured(headers)
        except ValueError:
            raise broken() from None
        answered = Answered(
            self.request_id, self.service, int(time.time()), units=float(measured.units), tokens=measured.tokens
        )
        return self.body.parameters.rewriter(answered)


class TranslatedExchange(Response):
    """A call in the form of the response that a route returns."""

    def __init__(self, exchange: Exchange, translation: Translation) -> None:
        self.background = None  # what Response has for FastAPI
        self._exchange = exchange
        self._translation = translation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers.

        Raises:
            GatewayError: what to answer instead, while nothing was.
        """
        del receive  # the body reads from it
        body = self._translation.body
        channel = AnswerChannel(send, self._translation.rewriter)
        try:
            await self._exchange(scope, body.receive, channel.send)
        except GatewayError as error:
            if not channel.begun:
                raise
            # The server closes the connection when this returns.
            _log.warning("An answer of %s was cut: %s", self._translation.service, error)
            return
        finally:
            await body.close()
        if not channel.begun and not body.gone:
            raise broken()  # the service broke off in the middle of an answer that was to be translated whole


class NoAnswer(Response):
    """For a client that went away."""

    def __init__(self) -> None:
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends nothing."""


async def begin(body: Body, seconds: float) -> bool:
    """Reads a body as far as it must be known; returns whether the client is still there.

    Raises:
        RequestTimeoutError: it did not come in time.
        GatewayError: it is refused.
    """
    try:
        async with asyncio.timeout(seconds):
            await body.begin()
    except TimeoutError:
        raise RequestTimeoutError(f"The request's body did not arrive within {seconds:g} s.") from None
    except ClientGoneError:
        return False
    return True


def told(client: Headers, body: Body) -> Headers:
    """The client's headers with those changed that describe the body."""
    headers = MutableHeaders(raw=list(client.raw))
    headers["content-type"] = body.content_type
    for name in ("content-length", "accept"):
        del headers[name]
    return headers


def model_not_found(error: NotFoundError) -> ModelNotFoundError:
    """What the registry says, as OpenAI's clients know it."""
    return ModelNotFoundError(error.message)
