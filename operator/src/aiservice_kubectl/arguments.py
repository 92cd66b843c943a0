"""The command line. Its help is written for somebody who uses the plugin for the first time."""

from __future__ import annotations

import argparse
from pathlib import Path

from aiservice_kubectl import __version__

_ABOUT = """\
What your AIServices do, why one is not ready, and what a manifest would make and cost.

  kubectl ais status               all services of the namespace
  kubectl ais why whisper          why it is not ready, in plain English, and what to do
  kubectl ais logs whisper -f      what its engine prints
  kubectl ais cache ls             what is cached, and what nobody uses
  kubectl ais plan -f whisper.yaml what would be made, whether it fits, what it costs
"""
_EXIT = """\
exit codes: 0 done; 1 no such object, or (plan) it would not be accepted; 2 the command line, a file or the operator's
configuration cannot be used; 3 (plan) it would be accepted and does not fit the cluster now; 4 the cluster could not
be asked
"""


def parser() -> argparse.ArgumentParser:
    """Builds the command line."""
    top = argparse.ArgumentParser(
        prog="kubectl ais",
        description=_ABOUT,
        epilog=_EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _status(commands)
    _why(commands)
    _logs(commands)
    _cache(commands)
    _plan(commands)
    return top


def _status(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    status = _command(
        commands,
        "status",
        "show all AIServices, or one in detail",
        "Shows all AIServices in a table; with a NAME its conditions, timings and children.",
        "kubectl ais status -A\n  kubectl ais status whisper -n speech",
    )
    status.add_argument("name", nargs="?", metavar="NAME", help="an AIService")
    _everywhere(status)
    _output(status)


def _why(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    why = _command(
        commands,
        "why",
        "say why an AIService is not ready, and what to do",
        "Says in plain English why an AIService is not ready, what the deepest cause is and what to do next; of one "
        "that is ready, what it runs on and since when.",
        "kubectl ais why whisper",
    )
    why.add_argument("name", metavar="NAME", help="an AIService")
    _output(why)


def _logs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    logs = _command(
        commands,
        "logs",
        "print what the engine, or the download, printed",
        "Prints the logs of the engine in all pods of an AIService, each line with its pod.",
        "kubectl ais logs whisper -f\n  kubectl ais logs whisper --previous     of what crashed\n"
        "  kubectl ais logs whisper --download     of the download of its model",
    )
    logs.add_argument("name", metavar="NAME", help="an AIService")
    which = logs.add_mutually_exclusive_group()
    which.add_argument("-f", "--follow", action="store_true", help="go on printing what comes")
    which.add_argument("-p", "--previous", action="store_true", help="of the containers before the last restart")
    logs.add_argument("--download", action="store_true", help="of the download of its model")
    logs.add_argument(
        "--tail", type=int, default=-1, metavar="LINES", help="only the last lines of each (default: all)"
    )


def _cache(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    cache = commands.add_parser("cache", help="show the cached models", description="Shows the cached models.")
    listed = _command(
        cache.add_subparsers(dest="cache_command", required=True, metavar="COMMAND"),
        "ls",
        "show all ModelCaches",
        "Shows all ModelCaches: source, size, progress, who uses them, for how long nobody has, and their claim.",
        "kubectl ais cache ls -A",
    )
    _everywhere(listed)
    _output(listed)


def _plan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plan = _command(
        commands,
        "plan",
        "say what a manifest would make, whether it fits, and what it costs",
        "Says what would be made of the AIServices and ModelCaches of some manifests, whether the API server and the "
        "operator would accept them, whether the model fits the GPU and the pods fit the nodes that are free now, and "
        "what they cost a month by the prices of their profiles. Nothing is changed.",
        "kubectl ais plan -f whisper.yaml -f sdxl.yaml\n  kubectl ais plan -f manifests/ -o json\n"
        "  kubectl ais plan -f whisper.yaml --offline --config operator-config.yaml     without a cluster",
    )
    plan.add_argument(
        "-f",
        "--filename",
        action="append",
        required=True,
        metavar="FILE",
        help="manifest, folder of manifests, or - for standard input; may be given several times",
    )
    plan.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the operator's configuration (default: its ConfigMap in the cluster)",
    )
    plan.add_argument("--operator-namespace", metavar="NAMESPACE", help="where the operator's ConfigMap is looked for")
    plan.add_argument("--offline", action="store_true", help="ask no cluster; needs --config")
    _output(plan)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, short: str, long: str, examples: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=short,
        description=long,
        epilog=f"examples:\n  {examples}\n\n{_EXIT}",
        formatter_class=_Help,
    )
    command.add_argument("-n", "--namespace", metavar="NAMESPACE", help="default: that of the current context")
    command.add_argument("--context", metavar="NAME", help="context of the kubeconfig (default: the current one)")
    command.add_argument("--kubeconfig", metavar="FILE", help="kubeconfig (default: as kubectl finds it)")
    return command


class _Help(argparse.RawDescriptionHelpFormatter):
    """Examples stay as they are; the description is wrapped, having no lines of its own."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)  # noqa: SLF001 - the one way to do both


def _everywhere(command: argparse.ArgumentParser) -> None:
    command.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces")


def _output(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--output", choices=["json"], help="for programs")
