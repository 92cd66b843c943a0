"""The floor: the pipeline in FastAPI as a first version does it, one picture at a time. `one_at_a_time.py --port N`."""

from __future__ import annotations

import argparse
import threading
from typing import Any

import uvicorn
from fastapi import FastAPI

from bench.peers.around import PATH, Pipeline

app = FastAPI()
pipeline = Pipeline()
turn = threading.Lock()


@app.post(PATH)
def text_to_image(body: dict[str, Any]) -> dict[str, Any]:
    """Answers in a worker thread of the framework; a pipeline is not for several threads at once."""
    request = pipeline.decode(body)
    with turn:
        return pipeline.make([request])[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
