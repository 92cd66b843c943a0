"""The command line of `scripts/cluster`."""

import argparse
import os
import sys
from collections.abc import Sequence

from localcluster.errors import ClusterError
from localcluster.layout import Layout, existing
from localcluster.local import LocalCluster
from localcluster.settings import locked
from localcluster.status import table


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; `scripts/cluster up` continues, `down` cleans up", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    layout = Layout(arguments.name)
    cluster = LocalCluster(layout)
    if arguments.command == "list":
        print("".join(f"{other.name}\n" for other in existing()), end="")
        return 0
    if arguments.command == "kubeconfig":
        if not layout.kubeconfig.exists():
            raise ClusterError("not up")
        print(layout.kubeconfig)
        return 0
    if arguments.command == "status":
        lines = cluster.status()
        print(table(lines))
        return 0 if lines and all(line.healthy for line in lines) else 1
    with locked(layout.lock):
        if arguments.command == "up":
            cluster.up(with_node=not arguments.control_plane_only, gpus=None)
        elif arguments.command == "down":
            cluster.down()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/cluster")
    parser.add_argument("--name", default="aiservice")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up")
    up.add_argument("--control-plane-only", action="store_true")
    for name in ("down", "status", "kubeconfig", "list"):
        commands.add_parser(name)
    return parser
