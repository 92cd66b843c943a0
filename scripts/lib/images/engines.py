"""Docker and buildah, behind one interface."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from images import base
from images.console import Task, say
from images.errors import ImagesError

HOST_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
"""What this machine trusts, perhaps a company's own authority. Builds see it; images do not keep it."""


@dataclass(frozen=True)
class Build:
    """One image to build."""

    tag: str
    dockerfile: str
    """Path below the root of the repository."""
    arguments: Mapping[str, str]
    wheels: Path | None
    """A folder of wheels to install from."""
    fresh: bool
    """Whether to do every step anew, whatever earlier builds left."""


@dataclass(frozen=True)
class Place:
    """Where builds happen."""

    root: Path
    """The repository, which is the build context."""
    cache: Path
    environ: Mapping[str, str]

    def log(self, name: str) -> Path:
        """Where the output of building an image goes."""
        return self.cache / "images" / "logs" / f"{name}.log"


class Engine(Protocol):
    """A program that builds images."""

    name: str
    default_base: str

    def use_base(self, wanted: str, *, fresh: bool) -> str:
        """Makes the base image available; returns the name to build from."""

    def build(self, task: Task, build: Build, log: Path) -> None:
        """Builds an image and tags it."""

    def save(self, task: Task, tag: str, tar: Path, log: Path) -> None:
        """Writes an image to a tar that docker, containerd and kind load."""

    def push(self, task: Task, tar: Path, tag: str, target: str, log: Path) -> None:
        """Pushes the image of a tar to a registry."""

    def tidy(self) -> None:
        """Removes what no image needs any more."""

    def clean(self) -> None:
        """Removes all that was built here."""


def build_options(build: Build, root: Path) -> list[str]:
    """The options that docker and buildah share."""
    options = ["--file", str(root / build.dockerfile), "--tag", build.tag]
    for name, value in sorted(build.arguments.items()):
        options += ["--build-arg", f"{name}={value}"]
    if build.wheels is not None:
        options += ["--build-context", f"wheels={build.wheels}"]
    if HOST_CERTIFICATES.exists():
        options += ["--secret", f"id=ca-certificates,src={HOST_CERTIFICATES}"]
    if build.fresh:
        options.append("--no-cache")
    return options


def needs_tls(target: str) -> bool:
    """Whether a registry must speak TLS; docker's rule: one on this machine need not."""
    host = target.partition("/")[0].partition(":")[0]
    return host not in {"localhost", "127.0.0.1"}


class Docker:
    """Docker with BuildKit."""

    name = "docker"
    default_base = "python:3.11-slim"

    def __init__(self, place: Place) -> None:
        self._place = place

    @staticmethod
    def answers(environ: Mapping[str, str]) -> bool:
        """Whether there is a docker whose engine runs."""
        try:
            found = subprocess.run(
                ["docker", "version", "--format", "{{.Server.Version}}"],
                capture_output=True,
                check=False,
                timeout=20,
                env=dict(environ),
            )
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return False
        return found.returncode == 0

    def use_base(self, wanted: str, *, fresh: bool) -> str:
        """Docker pulls a base image by itself; the local one is imported."""
        if wanted != base.LOCAL:
            return wanted
        _need_packages(self._place, "mmdebstrap")
        tar = base.make_tar(self._place.cache, anew=fresh, environ=self._place.environ)
        _run(["docker", "import", str(tar), base.TAG], self._place.environ)
        return base.TAG

    def build(self, task: Task, build: Build, log: Path) -> None:
        """Builds with buildx, which has named build contexts."""
        command = ["docker", "buildx", "build", "--progress=plain", "--load", *build_options(build, self._place.root)]
        if build.fresh:
            command.append("--pull")
        task.run([*command, str(self._place.root)], log=log, environ=self._place.environ)

    def save(self, task: Task, tag: str, tar: Path, log: Path) -> None:
        """Saves to a tar."""
        task.run(["docker", "save", "--output", tar, tag], log=log, environ=self._place.environ)

    def push(self, task: Task, tar: Path, tag: str, target: str, log: Path) -> None:
        """Loads the tar, whose image may no longer be the tagged one, and pushes it."""
        for command in (["load", "--input", str(tar)], ["tag", tag, target], ["push", target]):
            task.run(["docker", *command], log=log, environ=self._place.environ)

    def tidy(self) -> None:
        """Docker's own garbage collection is its owner's."""

    def clean(self) -> None:
        """Removes nothing: other projects share docker's storage."""


class Buildah:
    """Buildah with a storage of its own, shared by all checkouts of this project."""

    name = "buildah"
    default_base = base.LOCAL

    def __init__(self, place: Place) -> None:
        self._place = place
        self._home = place.cache / "buildah"
        self._driver: str | None = None
        # Cache mounts are kept below TMPDIR.
        self._environ = {**place.environ, "TMPDIR": str(self._home / "tmp"), "BUILDAH_ISOLATION": "chroot"}

    def _command(self, *words: str) -> list[str]:
        if self._driver is None:
            (self._home / "tmp").mkdir(parents=True, exist_ok=True)
            self._driver = self._pick_driver()
        return [*self._with(self._driver), *words]

    def _with(self, driver: str) -> list[str]:
        storage = self._home / driver
        return ["buildah", "--storage-driver", driver, "--root", f"{storage}/root", "--runroot", f"{storage}/run"]

    def _pick_driver(self) -> str:
        """Overlay where the file system below allows it; else whole copies of every layer, which work everywhere."""
        for driver in ("overlay", "vfs"):
            tried = subprocess.run(
                [*self._with(driver), "images", "--quiet"],
                check=False,
                capture_output=True,
                text=True,
                env=self._environ,
            )
            if tried.returncode == 0:
                if driver == "vfs":
                    say(f"{self._home} is on a file system without overlays: builds are slow and take much space there")
                return driver
        raise ImagesError(f"buildah cannot keep images in {self._home}: {tried.stderr.strip()}")

    def use_base(self, wanted: str, *, fresh: bool) -> str:
        """Makes the local base image once; any other is pulled by buildah itself."""
        if wanted != base.LOCAL:
            return wanted  # short names are looked up as the machine's registries.conf says
        _need_packages(self._place, "mmdebstrap")
        tar = base.make_tar(self._place.cache, anew=fresh, environ=self._place.environ)
        if fresh or self._label("dev.aiservice.recipe") != base.recipe_id():
            self._import_base(tar)
        return base.TAG

    def _label(self, name: str) -> str:
        found = subprocess.run(
            self._command(
                "inspect", "--type", "image", "--format", f'{{{{index .OCIv1.Config.Labels "{name}"}}}}', base.TAG
            ),
            check=False,
            capture_output=True,
            text=True,
            env=self._environ,
        )
        return found.stdout.strip()

    def _import_base(self, tar: Path) -> None:
        container = self._output("from", "scratch")
        self._output("add", "--quiet", container, str(tar), "/")
        self._output("config", "--label", f"dev.aiservice.recipe={base.recipe_id()}", "--cmd", "python3", container)
        self._output("commit", "--quiet", "--rm", container, base.TAG)

    def _output(self, *words: str) -> str:
        return _run(self._command(*words), self._environ)

    def build(self, task: Task, build: Build, log: Path) -> None:
        """Builds without user namespaces or a daemon, and with this machine's network."""
        options = ["--layers", "--network=host", *build_options(build, self._place.root)]
        try:
            task.run(
                self._command("build", *options, str(self._place.root)),
                log=log,
                environ=self._environ,
            )
        except ImagesError:
            self._output("rm", "--all")  # a failed build leaves its containers
            raise

    def save(self, task: Task, tag: str, tar: Path, log: Path) -> None:
        """Saves to a tar, uncompressed: it is read once, on this machine."""
        command = self._command("push", "--quiet", tag, f"docker-archive:{tar}:{tag}")
        task.run(command, log=log, environ=self._environ)

    def push(self, task: Task, tar: Path, tag: str, target: str, log: Path) -> None:
        """Loads the tar, whose image may no longer be the tagged one, and pushes it."""
        task.run(self._command("pull", "--quiet", f"docker-archive:{tar}"), log=log, environ=self._environ)
        command = self._command("push", "--quiet", f"--tls-verify={needs_tls(target)}", tag, f"docker://{target}")
        task.run(command, log=log, environ=self._environ)

    def tidy(self) -> None:
        """Removes images that lost their tag to a newer one, and layers that only they had."""
        self._output("rmi", "--prune", "--force")

    def clean(self) -> None:
        """Removes all images, layers and cached packages."""
        self._output("rm", "--all")
        self._output("rmi", "--all", "--force")
        _run(["rm", "-rf", "--one-file-system", str(self._home)], self._environ)


def pick(wanted: str, place: Place) -> Engine:
    """The engine of a name; for `auto`, docker if its engine answers, else buildah.

    Raises:
        ImagesError: If the engine cannot be used.
    """
    if wanted == "docker" or (wanted == "auto" and Docker.answers(place.environ)):
        if not Docker.answers(place.environ):
            raise ImagesError("docker does not answer: start its engine, or build with --engine buildah")
        _run(["docker", "buildx", "version"], place.environ)
        return Docker(place)
    _need_packages(place, "buildah")
    return Buildah(place)


def _need_packages(place: Place, *packages: str) -> None:
    script = f"source {place.root}/scripts/lib/debian.sh && need_packages {' '.join(packages)}"
    if subprocess.run(["bash", "-c", script], check=False, env=dict(place.environ)).returncode != 0:
        raise ImagesError("packages are missing; see above")


def _run(command: Sequence[str], environ: Mapping[str, str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=dict(environ))
    if done.returncode != 0:
        raise ImagesError(f"{' '.join(command)} failed with status {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout.strip()
