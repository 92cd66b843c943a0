"""The pipeline in mosec: `in_mosec.py --port N`. mosec reads the arguments itself."""

from __future__ import annotations

import sys
from typing import Any

from mosec import Server, Worker

from bench.peers.around import PATH, TIMEOUT_SECONDS, WINDOW_MS, Pipeline, max_batch


class TextToImage(Worker):
    """One worker process, batches by number and time."""

    def __init__(self) -> None:
        """Loads in the worker process."""
        self.pipeline = Pipeline()

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Computes a batch; mosec gives lists because batches are asked for."""
        return self.pipeline.make([self.pipeline.decode(body) for body in data])


if __name__ == "__main__":
    sys.argv += ["--address", "127.0.0.1", "--timeout", str(TIMEOUT_SECONDS * 1000), "--log-level", "warning"]
    server = Server()  # type: ignore[no-untyped-call]  # mosec is typed in parts
    server.append_worker(
        TextToImage,
        max_batch_size=max_batch(),
        max_wait_time=WINDOW_MS,
        timeout=TIMEOUT_SECONDS,
        route=PATH,
    )
    server.run()  # type: ignore[no-untyped-call]
