"""Toy services for the tests of the runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.toy_engine import ToyEngine
from support.toy_service import StartToy, Toy, running


@pytest.fixture
async def start_toy() -> AsyncIterator[StartToy]:
    """Starts toy services that stop when the test ends."""
    async with AsyncExitStack() as stack:

        async def start(engine: ToyEngine | None = None, *, wait: bool = True, **settings: Any) -> Toy:
            return await stack.enter_async_context(running(engine or ToyEngine(), settings, wait))

        yield start
