"""The command line of scripts/images."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from images import base
from images.catalog import REPOSITORY, Image, content_id, select, version_of
from images.console import Task, say, table
from images.engines import Build, Engine, Place, pick
from images.errors import ImagesError

_DESCRIPTION = """\
Builds the container images, each only if what it is made of has changed since.

commands:
  build   build the images (the default); the table at the end tells where their tars are
  paths   print the tars of the images as the sources are now, one a line; fails if one is not built
  clean   remove all that was built here: tars, layers, cached packages
"""

_EPILOG = """\
With a running docker the images are built on python:3.11-slim. Without, buildah builds them on a base image made
from Debian's packages, and no registry is needed. Tars, layers and packages are kept in $AISERVICE_CACHE
(default: ~/.cache/aiservice), for all checkouts.

environment:
  TORCH             cpu or cuda: which build of torch the inference images get. Unset: cpu if UV_FIND_LINKS holds its
                    wheel or UV_INDEX is set, else cuda
  UV_FIND_LINKS     a folder of wheels to look in before the package index
  UV_INDEX          an index to look in before the ordinary one, for example one with CPU builds of torch
  UV_DEFAULT_INDEX  the index to use instead of the ordinary one. Neither address may hold credentials: images tell
                    what they were built with
"""

_KEPT_TARS = 2


@dataclass(frozen=True)
class Wanted:
    """An image, and all that decides how it comes out."""

    image: Image
    tag: str
    arguments: Mapping[str, str]
    tar: Path


def main(argv: list[str], environ: Mapping[str, str]) -> int:
    """Runs a command; returns the exit status."""
    options = parse(argv)
    place = Place(Path(environ["AISERVICE_ROOT"]), Path(environ["AISERVICE_CACHE"]), environ)
    try:
        with exclusively(place.cache):
            return run(options, place)
    except ImagesError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped; what was built is kept")
        return 130


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/images",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", choices=["build", "paths", "clean"], default="build")
    parser.add_argument("--engine", choices=["auto", "docker", "buildah"], default="auto")
    parser.add_argument("--cuda", action="store_true", help="inference images for NVIDIA GPUs, tagged VERSION-cuda")
    parser.add_argument(
        "--base", metavar="IMAGE", help="base image with Python 3.11; 'local': made from Debian packages"
    )
    parser.add_argument("--only", metavar="NAME", action="append", default=[], help="this image; may be given again")
    parser.add_argument("--fresh", action="store_true", help="build all anew, on a base image with today's packages")
    parser.add_argument("--save", metavar="DIR", type=Path, help="also put the tars there, as NAME.tar")
    parser.add_argument("--push", metavar="REGISTRY", help="also push them, as REGISTRY/aiservice/NAME:VERSION")
    return parser.parse_args(argv)


def run(options: argparse.Namespace, place: Place) -> int:
    """Runs the command."""
    engine = pick(options.engine, place)
    if options.command == "clean":
        engine.clean()
        shutil.rmtree(place.cache / "images", ignore_errors=True)
        return 0
    wanted = plan(options, place, engine)
    if options.command == "paths":
        return paths(wanted)
    built = build(options, place, engine, wanted)
    deliver(options, place, engine, wanted)
    rows = [(one.tag, f"{one.tar.stat().st_size / 1e6:.0f} MB", built[one.tag], str(one.tar)) for one in wanted]
    print(table(("IMAGE", "SIZE", "BUILT IN", "TAR"), rows))
    return 0


def plan(options: argparse.Namespace, place: Place, engine: Engine) -> list[Wanted]:
    """What the images are to be made of, and where their tars belong."""
    base_image = options.base or engine.default_base
    flavour = "cuda" if options.cuda else torch_flavour(place.environ)
    wanted = []
    for image in select(options.only):
        version = version_of(place.root, image)
        arguments = {"VERSION": version, "BASE_IMAGE": base_image}
        for name in ("UV_DEFAULT_INDEX", "UV_INDEX") if image.torch else ("UV_DEFAULT_INDEX",):
            if place.environ.get(name):
                arguments[name] = place.environ[name]
        if image.torch:
            arguments["TORCH"] = flavour
        made_of = {**arguments, "base recipe": base.recipe_id() if base_image == base.LOCAL else ""}
        suffix = "-cuda" if options.cuda and image.torch else ""
        tar = place.cache / "images" / f"{image.name}{suffix}-{content_id(place.root, image, made_of)}.tar"
        wanted.append(Wanted(image, f"localhost/{REPOSITORY}/{image.name}:{version}{suffix}", arguments, tar))
    return wanted


def torch_flavour(environ: Mapping[str, str]) -> str:
    """Which build of torch to install when none was asked for."""
    asked = environ.get("TORCH", "")
    if asked in {"cpu", "cuda"}:
        return asked
    if asked not in {"", "auto"}:
        raise ImagesError(f"TORCH is {asked!r}: it may be cpu or cuda")
    if environ.get("UV_INDEX") or cpu_wheels(environ) is not None:
        return "cpu"
    say("no CPU build of torch at hand (UV_FIND_LINKS, UV_INDEX): taking the ordinary one with CUDA, about 3 GB")
    return "cuda"


def cpu_wheels(environ: Mapping[str, str]) -> Path | None:
    """The folder of UV_FIND_LINKS, if it holds a CPU build of torch for Python 3.11."""
    folder = Path(environ.get("UV_FIND_LINKS") or "/nonexistent")
    return folder if any(folder.glob("torch-*+cpu-cp311-*")) else None


def paths(wanted: list[Wanted]) -> int:
    """Prints the tars."""
    missing = [one.image.name for one in wanted if not one.tar.exists()]
    if missing:
        raise ImagesError(f"not built as the sources are now: {', '.join(missing)}. Run: scripts/images")
    print("\n".join(str(one.tar) for one in wanted))
    return 0


def build(options: argparse.Namespace, place: Place, engine: Engine, wanted: list[Wanted]) -> dict[str, str]:
    """Builds what is not there; returns by tag how long it took, for people."""
    took = {one.tag: "unchanged" for one in wanted}
    missing = wanted if options.fresh else [one for one in wanted if not one.tar.exists()]
    if not missing:
        for one in wanted:
            one.tar.touch()  # the ones in use are the last to go
        return took
    say(f"building {', '.join(one.image.name for one in missing)} with {engine.name}")
    base_image = engine.use_base(missing[0].arguments["BASE_IMAGE"], fresh=options.fresh)
    for one in missing:
        with Task(one.image.name) as task:
            arguments = {**one.arguments, "BASE_IMAGE": base_image}
            wheels = cpu_wheels(place.environ) if arguments.get("TORCH") == "cpu" else None
            engine.build(
                task,
                Build(one.tag, one.image.dockerfile, arguments, wheels, fresh=options.fresh),
                place.log(one.image.name),
            )
            task.step("writing its tar")
            new = one.tar.with_name(f"{one.tar.name}.new")
            new.unlink(missing_ok=True)
            engine.save(task, one.tag, new, place.log(f"{one.image.name}-save"))
            new.rename(one.tar)
            forget_old_tars(one)
            took[one.tag] = f"{task.seconds:.0f} s"
            task.step(f"done, {one.tar.stat().st_size / 1e6:.0f} MB")
    engine.tidy()
    return took


def forget_old_tars(one: Wanted) -> None:
    """Keeps the newest tars of an image; other checkouts may be using them."""
    prefix = one.tar.name.removesuffix(".tar").rpartition("-")[0]
    tars = [tar for tar in one.tar.parent.glob(f"{prefix}-*.tar") if tar.stem.rpartition("-")[0] == prefix]
    for tar in sorted(tars, key=lambda tar: tar.stat().st_mtime, reverse=True)[_KEPT_TARS:]:
        tar.unlink()


def deliver(options: argparse.Namespace, place: Place, engine: Engine, wanted: list[Wanted]) -> None:
    """Puts the images where --save and --push ask."""
    for one in wanted:
        if options.save is not None:
            options.save.mkdir(parents=True, exist_ok=True)
            target = options.save / f"{one.image.name}.tar"
            target.unlink(missing_ok=True)
            try:
                target.hardlink_to(one.tar)
            except OSError:  # another file system
                shutil.copyfile(one.tar, target)
        if options.push is not None:
            target_tag = f"{options.push.rstrip('/')}/{one.tag.removeprefix('localhost/')}"
            with Task(one.image.name) as task:
                task.step(f"pushing {target_tag}")
                engine.push(task, one.tar, one.tag, target_tag, place.log(f"{one.image.name}-push"))


@contextmanager
def exclusively(cache: Path) -> Iterator[None]:
    """Lets one build run at a time: checkouts share the storage."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "images.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another scripts/images")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
