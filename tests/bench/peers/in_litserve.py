"""The pipeline in LitServe: `in_litserve.py --port N`."""

# Annotations are not put off here: LitServe reads from them what a request is, and text it takes for nothing it knows.

import argparse
from typing import Any

import litserve

from aiservice_diffusion.bodies import Picture
from aiservice_diffusion.engine import Made
from aiservice_runtime import Prepared
from bench.peers.around import PATH, TIMEOUT_SECONDS, WINDOW_MS, Pipeline, max_batch


class TextToImage(litserve.LitAPI):  # type: ignore[misc]  # a package without types
    """One worker, batches by number and time; all three steps run in the worker process, as LitServe has it."""

    def setup(self, device: str) -> None:
        """Loads in the worker process."""
        self.pipeline = Pipeline()

    def decode_request(self, request: dict[str, Any]) -> Prepared[Picture, Made]:
        """Checks one request."""
        return self.pipeline.decode(request)

    def batch(self, inputs: list[Prepared[Picture, Made]]) -> list[Prepared[Picture, Made]]:
        """Nothing to stack: the pipeline takes a list."""
        return inputs

    def predict(self, x: list[Prepared[Picture, Made]]) -> list[dict[str, Any]]:
        """Computes a batch."""
        return self.pipeline.make(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """As above."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Pictures are encoded already."""
        return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    api = TextToImage(max_batch_size=max_batch(), batch_timeout=WINDOW_MS / 1000, api_path=PATH)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, timeout=TIMEOUT_SECONDS)
    server.run(host="127.0.0.1", port=parser.parse_args().port, generate_client_file=False, log_level="warning")
