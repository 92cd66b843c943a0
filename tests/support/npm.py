"""Packages from npm that tests run: each folder with a package.json is installed once, outside of the checkout.

A package.json states exact versions. The package-lock.json beside it holds the hashes of all that these bring, and no
download address, so that every registry serves. To make it anew:

    npm install --package-lock-only --omit-lockfile-registry-resolved
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

_MANIFESTS = ("package.json", "package-lock.json")


def installed(folder: Path) -> Path:
    """Installs what a folder's package.json and package-lock.json name; returns a folder that has it in node_modules.

    The folder is shared by all test runs of this machine, so leave it as it is: copy or link to `node_modules`, or run
    what is in `node_modules/.bin`. No package's install script is run.
    """
    node = node_version()
    contents = [folder.joinpath(name).read_bytes() for name in _MANIFESTS]
    version = hashlib.sha256(b"\0".join([node.encode(), *contents])).hexdigest()[:16]
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aiservice"
    cache = Path(os.environ.get("AISERVICE_CACHE") or default)
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / f"npm-{version}"
    with (cache / f"npm-{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            unfinished = cache / f"npm-{version}.new"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            for name in _MANIFESTS:
                shutil.copy(folder / name, unfinished)
            _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", folder=unfinished)
            unfinished.rename(home)
    return home


def own_node(packages: Path) -> str:
    """The Node that is among a folder's packages, for those that need a newer one than Debian's."""
    [program] = packages.glob("node_modules/node-linux-*/bin/node")
    program.chmod(0o755)  # npm leaves what no package's "bin" names as it was packed
    return str(program)


def node_version() -> str:
    """The version of Node, for example v20.20.2."""
    return _run("node", "--version", folder=Path.cwd()).strip()


def _run(*command: str, folder: Path) -> str:
    if shutil.which(command[0]) is None:
        pytest.fail(f"{command[0]} is missing: install the Debian packages nodejs and npm (make test does)")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)} failed:\n{done.stderr or done.stdout}")
    return done.stdout
