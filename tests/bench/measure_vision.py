"""How long the vision image takes to be ready. `scripts/bench vision` runs it; half a minute."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench import cold_start
from bench.report import machine, publish
from support import models
from weights import tiny


def run(output: Path | None) -> None:
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="aiservice-bench-") as name:
        folder = Path(name)
        tiny.blip2(folder / "blip2")
        found = {
            "PP-OCRv6 small, real weights": cold_start.starts(
                "aiservice_vision", "image-to-text", folder / "ocr", model_dir=models.real_weights()
            ),
            "tiny BLIP-2": cold_start.starts(
                "aiservice_vision", "image-to-text", folder / "caption", model_dir=folder / "blip2"
            ),
        }
    document = {"machine": facts, "cold_start": cold_start.kept(found)}
    publish("Vision: cold start on a CPU", cold_start.METHOD, [cold_start.drawn(found)], document, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file for the figures as JSON")
    run(parser.parse_args().output)


if __name__ == "__main__":
    main()
