"""The command line of `scripts/cluster`."""

import argparse
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from localcluster.errors import ClusterError
from localcluster.kind import KindCluster, docker_answers
from localcluster.layout import Layout, existing
from localcluster.local import LocalCluster
from localcluster.progress import say
from localcluster.provider import Provider
from localcluster.settings import ProviderName, locked, provider_of
from localcluster.status import table

_DESCRIPTION = """\
A real Kubernetes on this machine: the upstream components, no registry, no virtual machine.

  scripts/cluster up                        a cluster with a node that runs pods; needs root
  export KUBECONFIG=$(scripts/cluster kubeconfig)
  export PATH=$(dirname $(scripts/tool kubectl)):$PATH
  kubectl get nodes
  scripts/cluster load image.tar            what `docker save` or `buildah push ... oci-archive:` wrote
  scripts/cluster down                      everything is gone but the logs

  scripts/cluster up --control-plane-only   API server, controllers and scheduler, for tests; any user, 5 seconds
  scripts/cluster --name second up          beside the first, on its own ports and network
"""
_EPILOG = "docs/local-cluster.md says what is in it, how to reach pods and services, and what to do when it fails."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return _COMMANDS[arguments.command](arguments)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder of another user: the path is in the message
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: `scripts/cluster up` goes on from here, `scripts/cluster down` cleans up", file=sys.stderr)
        return 130


def _up(arguments: argparse.Namespace) -> int:
    layout = Layout(arguments.name)
    with locked(layout.lock):
        there = provider_of(layout)
        wanted: ProviderName = arguments.provider or there or _default_provider(arguments.control_plane_only)
        if there not in (None, wanted):
            raise ClusterError(f"cluster {layout.name} is a {there} cluster: run `scripts/cluster down` first")
        _provider(layout, wanted).up(
            with_node=not arguments.control_plane_only, gpus=arguments.gpus, controller_qps=arguments.controller_qps
        )
    say(f"export KUBECONFIG={layout.kubeconfig}")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    layout = Layout(arguments.name)
    with locked(layout.lock):
        _provider(layout, provider_of(layout)).down()
        if arguments.purge:
            shutil.rmtree(layout.root, ignore_errors=True)
        layout.lock.unlink(missing_ok=True)
    say(f"cluster {layout.name} is down")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    layout = Layout(arguments.name)
    lines = _provider(layout, provider_of(layout)).status()
    if not lines:
        print(f"cluster {layout.name} is not up")
        return 1
    print(table(lines))
    return 0 if all(line.healthy for line in lines) else 1


def _load(arguments: argparse.Namespace) -> int:
    layout = _existing(arguments.name)
    for archive in arguments.archives:
        if not archive.is_file():
            raise ClusterError(f"there is no file {archive}")
    with locked(layout.lock):
        for archive in arguments.archives:
            names = _provider(layout, provider_of(layout)).load(archive)
            say(f"loaded {archive.name}" + "".join(f"\n           {name}" for name in names))
    return 0


def _kubeconfig(arguments: argparse.Namespace) -> int:
    print(_existing(arguments.name).kubeconfig)
    return 0


def _address(arguments: argparse.Namespace) -> int:
    layout = _existing(arguments.name)
    print(_provider(layout, provider_of(layout)).address())
    return 0


def _list(_: argparse.Namespace) -> int:
    for layout in existing():
        print(layout.name)
    return 0


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "up": _up,
    "down": _down,
    "status": _status,
    "load": _load,
    "kubeconfig": _kubeconfig,
    "address": _address,
    "list": _list,
}


def _existing(name: str) -> Layout:
    layout = Layout(name)
    if not layout.kubeconfig.exists():
        raise ClusterError(f"cluster {name} is not up: run `scripts/cluster --name {name} up`")
    return layout


def _default_provider(control_plane_only: bool) -> ProviderName:
    return "kind" if not control_plane_only and docker_answers() else "local"


def _provider(layout: Layout, name: ProviderName | None) -> Provider:
    return KindCluster(layout) if name == "kind" else LocalCluster(layout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/cluster",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", default="aiservice", help="which cluster (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="bring a cluster up; one that is up stays, one that is half up is completed")
    up.add_argument("--control-plane-only", action="store_true", help="no node: pods are scheduled and never started")
    up.add_argument(
        "--provider",
        choices=("local", "kind"),
        help="who runs it: kind, or processes of this machine (default: kind where Docker is, else local)",
    )
    up.add_argument("--gpus", type=_count, help="GPUs that the node pretends to have, for the scheduler to count")
    up.add_argument(
        "--controller-qps",
        type=_count,
        metavar="N",
        help="requests a second that the controller manager may send (default: 500; Kubernetes' own: 20)",
    )
    down = commands.add_parser("down", help="end it and remove what it left, the logs excepted; also after a crash")
    down.add_argument("--purge", action="store_true", help="remove the logs too")
    commands.add_parser("status", help="what runs and where its log is; exit code 0 only when all is well")
    load = commands.add_parser("load", help="load container images from archives")
    load.add_argument("archives", nargs="+", type=Path, metavar="IMAGE.tar")
    commands.add_parser("kubeconfig", help="print the path of the kubeconfig file")
    commands.add_parser("address", help="print the node's address: NodePorts answer there")
    commands.add_parser("list", help="print the names of the clusters that are up")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)
