"""Entry point of `kubectl-ais`, which kubectl runs for `kubectl ais`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module

from aiservice_kubectl.arguments import parser
from aiservice_kubectl.cluster import Cluster
from aiservice_kubectl.errors import Exit, PluginError
from aiservice_kubectl.kubectl import Kubectl
from aiservice_kubectl.request import Request
from aiservice_kubectl.text import Paint

_COMMANDS = {"status": "status", "why": "why", "logs": "logs", "cache": "caches", "plan": "plan"}
_WIDEST = 100
"""Columns beyond which lines of prose are hard to read."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        # Only what is asked for is loaded: the builders that `plan` needs take a second.
        command = import_module(f"aiservice_kubectl.commands.{_COMMANDS[options.command]}")
        code: int = command.run(_request(options))
        sys.stdout.flush()
    except PluginError as error:
        print(f"kubectl ais: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has seen enough (`| head`). Python would complain when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    return code


def _request(options: argparse.Namespace) -> Request:
    on_terminal = sys.stdout.isatty()
    # https://no-color.org
    coloured = on_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    columns = shutil.get_terminal_size((_WIDEST, 24)).columns
    return Request(
        options=options,
        cluster=Cluster(Kubectl(options.context, options.kubeconfig)),
        paint=Paint(coloured),
        width=max(40, min(columns, _WIDEST)),
        now=datetime.now(UTC),
    )


if __name__ == "__main__":
    sys.exit(main())
