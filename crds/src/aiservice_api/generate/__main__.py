"""`python -m aiservice_api.generate [--check]`: writes the CRDs and the API reference, or says which are stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from aiservice_api.generate.outputs import COMMAND, outputs

REPOSITORY = Path(__file__).resolve().parents[4]


def stale(root: Path) -> dict[Path, str]:
    """The generated files below a repository's root that are missing or out of date, with the text they should have."""
    expected = {root / path: text for path, text in outputs().items()}
    return {
        path: text for path, text in expected.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    }


def write(files: dict[Path, str]) -> None:
    """Writes files, making the folders they need."""
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m aiservice_api.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and name the stale files")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="repository to write to (default: %(default)s)")
    options = parser.parse_args(arguments)
    files = stale(options.root)
    names = [str(path.relative_to(options.root)) for path in files]
    if options.check:
        for name in names:
            print(f"{name} is stale: run `{COMMAND}`", file=sys.stderr)
        return 1 if names else 0
    write(files)
    for name in names:
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
