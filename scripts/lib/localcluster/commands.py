"""Running other programs to their end."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from localcluster.errors import ClusterError
from localcluster.layout import REPOSITORY


def run(argv: Sequence[str | Path], *, stdin: str | None = None, timeout: float = 120) -> str:
    """Run a program and return its standard output.

    Raises:
        ClusterError: it is missing, failed, or did not end within `timeout` seconds; with what it printed.
    """
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise ClusterError(f"{argv[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"`{_shown(argv)}` did not end within {timeout:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise ClusterError(f"`{_shown(argv)}` failed with exit code {done.returncode}: {said}")
    return done.stdout


def _shown(argv: Sequence[str | Path]) -> str:
    line = " ".join(map(str, argv))
    return line if len(line) <= 200 else line[:200] + " ..."


def tool(name: str) -> Path:
    """The path of a pinned tool, built first when this machine does not have it; that prints its own progress."""
    done = subprocess.run([REPOSITORY / "scripts/tool", name], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"the tool {name} could not be built, see above")
    return Path(done.stdout.strip())


def need_packages(*packages: str) -> None:
    """Make sure of Debian packages: installs them as root, else raises after printing the command to run."""
    script = f'. "{REPOSITORY}/scripts/lib/debian.sh"; need_packages "$@"'
    if subprocess.run(["bash", "-c", script, "need_packages", *packages], check=False).returncode != 0:
        raise ClusterError("Debian packages are missing, see above")
