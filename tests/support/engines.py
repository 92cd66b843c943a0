"""Drives an engine as the runtime does, without HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiservice_runtime import Answer, Engine


def load(engine: Engine) -> None:
    """Imports and loads."""
    engine.import_libraries()
    engine.load()


def ask(engine: Engine, task: str = "", /, **fields: Any) -> Answer:
    """Returns the engine's answer to one request of a task; of its only one without a name."""
    [answer] = ask_together(engine, task, [fields])
    return answer


def ask_for_file(engine: Engine, kind: str, task: str = "", /, **fields: Any) -> Answer:
    """Returns the engine's answer to one request that wants the file itself, in this format."""
    [chosen] = [each for each in engine.tasks if task in {"", each.name}]
    body = chosen.body(**fields)
    body.answer_with_file(kind)
    prepared = chosen.prepare(body)
    return prepared.finish(chosen.run(prepared.pieces, lambda: None))


def ask_together(engine: Engine, task: str, requests: Sequence[dict[str, Any]]) -> list[Answer]:
    """Returns the answers to requests that are computed in one batch. They must be compatible."""
    [chosen] = [each for each in engine.tasks if task in {"", each.name}]
    prepared = [chosen.prepare(chosen.body(**fields)) for fields in requests]
    assert len({each.together for each in prepared}) == 1
    works = [piece for each in prepared for piece in each.pieces]
    results = iter(chosen.run(works, lambda: None))
    return [each.finish([next(results) for _ in each.pieces]) for each in prepared]
