"""Command line of the demo."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from demo import flow
from demo.steps import Console, Runner, StepError

DESCRIPTION = """\
Brings up a real Kubernetes on this machine, builds and loads the images, installs both charts, applies
examples/*.yaml, and sends real input through the gateway. Everything stays up until `down`."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = Path(__file__).resolve().parents[3]
    made = argparse.ArgumentParser(
        prog="scripts/demo", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("action", choices=("up", "down", "show"), help="show sends the requests again")
    made.add_argument("--cluster", default="aiservice-demo", help="name of the cluster (default: %(default)s)")
    made.add_argument(
        "--output",
        type=Path,
        default=root / "demo-output",
        help="folder for logs and answers (default: demo-output)",
    )
    made.set_defaults(root=root)
    return made


def main() -> int:
    """Runs the action; returns the exit code."""
    arguments = parser().parse_args()
    console = Console()
    runner = Runner(arguments.root, arguments.output / "logs", console)
    demo = flow.Demo(arguments.root, arguments.output, arguments.cluster, runner)
    actions = {"up": flow.up, "down": flow.down, "show": flow.show}
    try:
        actions[arguments.action](demo)
    except StepError as failure:
        log = f"\nRead {failure.log}" if failure.log else ""
        print(f"\nThe demo stopped in step '{failure.step}': {failure.reason}{log}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. What is up stays up; `make demo-down` removes it.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
