"""The processes of a cluster: started, found again, and ended.

Every process carries its cluster's folder in its environment and hands it on to its children. That mark is all
that is needed to find them: it is written by the kernel with the process itself, so no record can be stale,
missing after a `kill -9` of the command, or point at a process number that was given to somebody else.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import ClusterError
from localcluster.layout import Layout
from localcluster.network import is_free

_CLUSTER = "AISERVICE_CLUSTER_FOLDER"
_COMPONENT = "AISERVICE_CLUSTER_COMPONENT"
_PROGRAM = "AISERVICE_CLUSTER_PROGRAM"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Process:
    """A live process of a cluster. `main` tells a component from the helpers and children it started."""

    pid: int
    component: str
    main: bool


@dataclass(frozen=True)
class Component:
    """What to start. `ready` is asked until it says yes, for at most `timeout` seconds.

    `port` is the one it must find free on this machine. `within` gives the words to put before `argv`: a command that
    starts it in other namespaces.
    """

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool]
    timeout: float = 60
    port: int | None = None
    within: Callable[[], tuple[str, ...]] = tuple


def processes(layout: Layout) -> list[Process]:
    """Every live process of the cluster, in order of process number."""
    return sorted(_scan(layout), key=lambda process: process.pid)


def _scan(layout: Layout) -> Iterator[Process]:
    wanted = os.fsencode(f"{_CLUSTER}={layout.root}")
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            if wanted not in environment:
                continue
            program = (folder / "cmdline").read_bytes().split(b"\0")[0]
        except OSError:  # ended meanwhile, or somebody else's
            continue
        values = dict(entry.split(b"=", 1) for entry in environment if b"=" in entry)
        component = values.get(_COMPONENT.encode(), b"").decode()
        main = Path(os.fsdecode(program)).name == values.get(_PROGRAM.encode(), b"").decode()
        yield Process(int(folder.name), component, main)


def main_process(layout: Layout, component: str) -> int | None:
    """The process number of a component, or None where it does not run."""
    return next((p.pid for p in processes(layout) if p.main and p.component == component), None)


def spawn(layout: Layout, component: Component) -> subprocess.Popen[bytes]:
    """Start a component in a session of its own, so that it outlives this command, with its log appended to."""
    layout.logs.mkdir(parents=True, exist_ok=True)
    environment = {
        "PATH": _PATH,
        "HOME": "/root" if os.geteuid() == 0 else str(Path.home()),
        _CLUSTER: str(layout.root),
        _COMPONENT: component.name,
        _PROGRAM: Path(component.argv[0]).name,
    }
    with layout.log(component.name).open("ab") as log:
        return subprocess.Popen(
            [*component.within(), *component.argv],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_until_ready(layout: Layout, component: Component) -> None:
    """Wait for a component that was spawned.

    Raises:
        ClusterError: it ended, or was not ready in time; with the end of its log and the log's path.
    """
    deadline = time.monotonic() + component.timeout
    appeared = False
    while time.monotonic() < deadline:
        running = main_process(layout, component.name) is not None
        if running and component.ready():
            return
        if appeared and not running:
            raise ClusterError(f"{component.name} ended while it was starting\n{log_end(layout, component.name)}")
        # The first look can come before the program has replaced the shell that starts it.
        appeared = appeared or running or time.monotonic() > deadline - component.timeout + 5
        time.sleep(0.05)
    raise ClusterError(
        f"{component.name} was not ready after {component.timeout:.0f} s\n{log_end(layout, component.name)}"
    )


def log_end(layout: Layout, component: str, lines: int = 12) -> str:
    """The last lines of a component's log, under the path of the log."""
    log = layout.log(component)
    try:
        end = log.read_text(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return f"  it left no log at {log}"
    return "\n".join([f"  the end of {log}:", *(f"    {line[:400]}" for line in end)])


def kill(layout: Layout, component: str | None = None) -> None:
    """End the processes of one component, or of the whole cluster, and wait until they are gone.

    They are killed outright: what they hold goes with them, and a graceful stop of an API server takes a minute.
    The command that calls this is spared should it carry the mark itself.
    """
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = [
            process
            for process in processes(layout)
            if component in (None, process.component) and process.pid != os.getpid()
        ]
        if not found:
            return
        for process in found:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            except PermissionError as error:
                raise ClusterError(
                    f"process {process.pid} ({process.component}) belongs to another user: run this as that user"
                ) from error
        time.sleep(0.02)
    raise ClusterError(f"processes {[process.pid for process in found]} do not end")


def start(layout: Layout, components: Sequence[Component]) -> list[str]:
    """Start those of the components that do not run, together, wait for all of them, and return what was started."""
    missing = [component for component in components if main_process(layout, component.name) is None]
    for component in missing:
        kill(layout, component.name)  # children that outlived it hold its sockets
        if component.port is not None and not is_free(component.port):
            raise ClusterError(
                f"port {component.port}, which {component.name} had, is now used by another program: "
                "run `scripts/cluster down` and `up` for a cluster on other ports"
            )
    for component in missing:
        spawn(layout, component)
    for component in components:
        wait_until_ready(layout, component)
    return [component.name for component in missing]
