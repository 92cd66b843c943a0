"""Builds the archives of the kubectl plugin, one for each platform, and the manifest by which krew installs them.

An archive holds the plugin, the libraries that it needs, compiled for every Python that it supports, and a program
that finds one of these on the host. The same sources give the same archive, byte by byte.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PACKAGES = ("crds/src/aiservice_api", "operator/src/aiservice_operator", "operator/src/aiservice_kubectl")
_UNNEEDED = shutil.ignore_patterns("__pycache__", "*.pyc", "bin")


@dataclass(frozen=True)
class Platform:
    """An operating system and a processor, as krew and as uv call them."""

    os: str
    arch: str
    uv: str

    @property
    def name(self) -> str:
        """As the archive is named."""
        return f"{self.os}-{self.arch}"


PLATFORMS = (
    Platform("linux", "amd64", "x86_64-manylinux_2_28"),
    Platform("linux", "arm64", "aarch64-manylinux_2_28"),
    Platform("darwin", "amd64", "x86_64-apple-darwin"),
    Platform("darwin", "arm64", "aarch64-apple-darwin"),
)


def main(arguments: list[str] | None = None) -> int:
    """Builds what the command line asks for, and prints what it made."""
    names = [platform.name for platform in PLATFORMS]
    options = _parser(names).parse_args(arguments)
    wanted = [platform for platform in PLATFORMS if not options.platform or platform.name in options.platform]
    release = version()
    options.output.mkdir(parents=True, exist_ok=True)
    built: list[tuple[Platform, Path]] = []
    for platform in wanted:
        archive = options.output / f"kubectl-ais-{release}-{platform.name}.tar.gz"
        with tempfile.TemporaryDirectory() as scratch:
            collect(Path(scratch), platform, options.uv)
            archive.write_bytes(pack(Path(scratch)))
        built.append((platform, archive))
        print(archive)
    manifest = options.output / "ais.yaml"
    manifest.write_text(krew_manifest(release, options.url, options.homepage, built))
    print(manifest)
    return 0


def _parser(platforms: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/plugin", description=__doc__)
    parser.add_argument(
        "--platform",
        action="append",
        choices=platforms,
        help="only this one; may be given several times (default: all)",
    )
    parser.add_argument(
        "--url",
        required=True,
        help="address of the folder that the archives will be served from; goes into the manifest",
    )
    parser.add_argument("--homepage", required=True, help="address of the project; goes into the manifest")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build/plugin", help="folder for the results (default: build/plugin)"
    )
    parser.add_argument("--uv", default="uv", help=argparse.SUPPRESS)
    return parser


def version() -> str:
    """Returns the version of the plugin, which is the operator's."""
    project = tomllib.loads((ROOT / "operator/pyproject.toml").read_text())["project"]
    return str(project["version"])


def collect(folder: Path, platform: Platform, uv: str) -> None:
    """Puts everything that an archive holds into an empty folder."""
    library = folder / "lib"
    for python in PYTHONS:
        with tempfile.TemporaryDirectory() as scratch:
            _install(Path(scratch), platform, python, uv)
            # Libraries are the same for every Python but for what is compiled, which has the Python in its name.
            shutil.copytree(scratch, library, dirs_exist_ok=True, ignore=_UNNEEDED)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, library / Path(package).name, ignore=_UNNEEDED)
    for name in ("kubectl-ais", "start.py"):
        shutil.copy(HERE / name, folder / name)
    shutil.copy(ROOT / "LICENSE", folder / "LICENSE")


def _install(target: Path, platform: Platform, python: str, uv: str) -> None:
    command = [uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--target", str(target), "--python-platform", platform.uv, "--python-version", python]
    subprocess.run([*command, "-r", str(HERE / "requirements.txt")], check=True)


def pack(folder: Path) -> bytes:
    """Returns a folder as a .tar.gz that depends on nothing but what is in it."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            content = path.read_bytes()
            entry.size, entry.mode = len(content), 0o755 if entry.name == "kubectl-ais" else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


def krew_manifest(release: str, url: str, homepage: str, archives: list[tuple[Platform, Path]]) -> str:
    """Returns the manifest: plugins/ais.yaml with its places filled."""
    template = (ROOT / "plugins/ais.yaml").read_text()
    head, _, platform_template = template.partition("  platforms:\n")
    entries = [
        Template(platform_template).substitute(
            os=platform.os,
            arch=platform.arch,
            uri=f"{url.rstrip('/')}/{archive.name}",
            sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        )
        for platform, archive in archives
    ]
    return Template(head).substitute(version=release, homepage=homepage) + "  platforms:\n" + "".join(entries)


if __name__ == "__main__":
    sys.exit(main())
