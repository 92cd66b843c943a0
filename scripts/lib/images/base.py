"""The base image for machines that reach no registry: Debian bookworm with Python 3.11, made from Debian's packages."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from images.console import Task
from images.errors import ImagesError

LOCAL = "local"
TAG = "localhost/aiservice/python:3.11"
SUITE = "bookworm"  # the Debian release whose python3 is 3.11

_OPTIONS = (
    "--variant=apt",
    "--format=tar",
    # Without these two, usrmerge would bring all of Perl.
    "--hook-directory=/usr/share/mmdebstrap/hooks/merged-usr",
    "--include=usr-is-merged,python3,python3-venv,ca-certificates",
    # As Debian's own slim images do: no documentation but licences, no translations.
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/lintian/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)


def recipe_id() -> str:
    """Names the way the base image is made."""
    return hashlib.sha256("\n".join([SUITE, *_OPTIONS]).encode()).hexdigest()[:16]


def tar_path(cache: Path) -> Path:
    """Where the root file system is kept."""
    return cache / "images" / f"base-{recipe_id()}.tar"


def make_tar(cache: Path, *, anew: bool, environ: Mapping[str, str]) -> Path:
    """Makes the root file system, unless it is there already; returns its tar.

    Args:
        cache: The project's cache folder.
        anew: Make it even so, from today's packages.
        environ: The environment for the programs it runs.

    Raises:
        ImagesError: If it cannot be made.
    """
    path = tar_path(cache)
    if path.exists() and not anew:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with Task("base image") as task:
        task.step(f"Debian {SUITE} with Python 3.11, from packages (about a minute)")
        sources = cache / "images" / "base.sources.list"
        sources.write_text("\n".join(debian_sources(environ)) + "\n")
        new = path.with_name(path.name.replace(".tar", ".new.tar"))
        task.run(
            ["mmdebstrap", *_OPTIONS, SUITE, new, sources],
            log=cache / "images" / "logs" / "base.log",
            # The programs of a minimal system find each other on root's path only.
            environ={**environ, "PATH": f"{environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"},
        )
        new.rename(path)
        task.step(f"done, {path.stat().st_size / 1e6:.0f} MB")
    return path


def debian_sources(environ: Mapping[str, str]) -> list[str]:
    """Where this machine gets Debian's packages from, as lines of a sources.list for the base image.

    Raises:
        ImagesError: If the machine does not get packages from Debian.
    """
    targets = _index_targets(environ)
    if not targets:
        subprocess.run(["apt-get", "-q", "update"], check=False, capture_output=True, env=dict(environ))
        targets = _index_targets(environ)
    lines = sources_of(targets)
    if not lines:
        raise ImagesError(
            "apt on this machine knows no packages of Debian, of which the base image would be made.\n"
            "Name another base image, with Python 3.11 in it: --base IMAGE (for example python:3.11-slim)"
        )
    return lines


def _index_targets(environ: Mapping[str, str]) -> list[str]:
    found = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI) $(CODENAME) $(COMPONENT)",
            "Created-By: Packages",
            "Origin: Debian",
        ],
        check=False,
        capture_output=True,
        text=True,
        env=dict(environ),
    )
    return sorted(set(found.stdout.splitlines()))


def sources_of(targets: list[str]) -> list[str]:
    """Turns `URI CODENAME COMPONENT` of this machine's releases into sources of the wanted release, `main` only."""
    lines = []
    for target in targets:
        uri, codename, component = target.split()
        release, _, pocket = codename.partition("-")
        # Updates and security, as here; not backports, nor what this machine tries out.
        if component == "main" and release.isalpha() and pocket in {"", "updates", "security"}:
            suite = f"{SUITE}-{pocket}" if pocket else SUITE
            lines.append(f"deb {uri} {suite} main")
    return sorted(set(lines))
