"""Command line: `python -m aiservice_operator {run,check,release} --config FILE`."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from pathlib import Path

import uvloop

from aiservice_operator import __version__, handlers, logs, process, release
from aiservice_operator.desired.preload import preload
from aiservice_operator.errors import ConfigurationError, OperatorError
from aiservice_operator.settings import identity, load

log = logging.getLogger(__name__)

_DESCRIPTION = """\
The AIService operator: turns AIService and ModelCache objects into cached models and serving pods.

In a cluster it uses the pod's service account, elsewhere the cluster of KUBECONFIG. Of several replicas one acts: the
one that holds the Lease `aiservice-operator`, in the namespace POD_NAMESPACE, as POD_NAME.
"""
_EXIT_CODES = """\
exit codes: 0 told to stop (SIGTERM, SIGINT) and the Lease given back; 1 cannot go on, for example the Lease was lost: \
start it again; 2 the command line or the configuration is wrong
"""


def parser() -> argparse.ArgumentParser:
    """Builds the command line."""
    top = argparse.ArgumentParser(
        prog="aiservice-operator",
        description=_DESCRIPTION,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="watch the cluster and act until told to stop")
    check = commands.add_parser("check", help="read the configuration, say what is wrong with it, and exit")
    let_go = commands.add_parser(
        "release",
        help="remove the operator's finalizer from the ModelCaches it serves, once it has stopped for good",
        description="Without an operator nobody removes the finalizer of a ModelCache in use, and neither it nor its "
        "namespace could be deleted. What serves goes on serving. Refuses while an operator holds the Lease.",
    )
    let_go.add_argument(
        "--patience",
        type=float,
        default=60,
        metavar="SECONDS",
        help="how long to wait for an operator that is stopping (default: %(default)s)",
    )
    for command in (run, check, let_go):
        command.add_argument(
            "--config",
            type=Path,
            required=True,
            metavar="FILE",
            help="YAML file, as the chart makes it from its values (docs/operator.md describes it)",
        )
    return top


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        settings = load(options.config)
        who = identity(os.environ) if settings.leader_election.enabled and options.command != "check" else None
    except ConfigurationError as error:
        print(f"aiservice-operator: {error}", file=sys.stderr)
        return 2
    if options.command == "check":
        print(f"{options.config} is right: {len(settings.profiles)} profiles, {len(settings.images)} images")
        return 0
    logs.configure(settings.log)
    handlers.quiet()
    try:
        if options.command == "release":
            log.info("%d ModelCaches released", uvloop.run(release.run(settings, who, options.patience)))
        else:
            preload()
            gc.freeze()  # what was imported stays: the collector need not walk through it again and again
            while uvloop.run(process.run(settings, who)):
                log.info("beginning anew")
    except ConfigurationError as error:
        log.error("%s", error)
        return 2
    except OperatorError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
