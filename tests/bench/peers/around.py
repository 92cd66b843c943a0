"""The pipeline of the diffusion image without our server around it: what each peer here serves, whichever it is.

The folder of the model and the largest batch come by environment variables: some peers read the arguments themselves.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from aiservice_diffusion.bodies import Picture
from aiservice_diffusion.engine import DiffusionEngine, Made
from aiservice_diffusion.settings import DiffusionSettings
from aiservice_runtime import Prepared

PATH = "/api/text-to-image"
WINDOW_MS = 10
"""How long a batch waits for company: the runtime's own default."""
TIMEOUT_SECONDS = 600


def max_batch() -> int:
    """How many pictures are made at once."""
    return int(os.environ["BENCH_MAX_BATCH"])


class Pipeline:
    """The engine of the image, driven by whoever owns it; a request is one picture."""

    def __init__(self) -> None:
        """Loads and warms up, with as many threads as our own service takes."""
        self._engine = DiffusionEngine(DiffusionSettings(model_dir=Path(os.environ["BENCH_MODEL"])))
        self._engine.import_libraries()
        self._engine.load()
        self._engine.warm_up()
        [self._task] = [task for task in self._engine.tasks if task.name == "text-to-image"]

    def decode(self, body: dict[str, Any]) -> Prepared[Picture, Made]:
        """Checks a request, as our service does."""
        return cast("Prepared[Picture, Made]", self._task.prepare(self._task.body(**body)))

    def make(self, requests: Sequence[Prepared[Picture, Made]]) -> list[dict[str, Any]]:
        """Makes the pictures of a batch, those that go together at once, and encodes them into answers."""
        answers: dict[int, dict[str, Any]] = {}
        groups: dict[Any, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(request.together, []).append(number)
        for members in groups.values():
            made = self._task.run([requests[number].pieces[0] for number in members], lambda: None)
            answers |= {
                number: requests[number].finish([result]).body for number, result in zip(members, made, strict=True)
            }
        return [answers[number] for number in range(len(requests))]
