"""Drives an engine as the runtime does, without HTTP."""

from __future__ import annotations

from typing import Any

from aiservice_runtime import Answer, Engine


def ask(engine: Engine, **fields: Any) -> Answer:
    """Returns the engine's answer to one request of its only task."""
    [task] = engine.tasks
    [answer] = task.run([task.prepare(task.body(**fields))])
    return answer
