"""The images: what each is built from, and a name for exactly that content."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from images.errors import ImagesError

REPOSITORY = "aiservice"
_RECIPE = 1
"""Raised when the way images are made changes, so that those made before do not count."""

_IGNORED = frozenset({"__pycache__", ".mypy_cache", ".ruff_cache"})


@dataclass(frozen=True)
class Image:
    """One image."""

    name: str
    folder: str
    """Where its Dockerfile and pyproject.toml are, below the root of the repository."""
    torch: bool = False
    """Whether it exists in a CPU and a CUDA flavour."""
    version_of: str | None = None
    """The folder whose pyproject.toml tells its version, where that is not its own."""
    demo: bool = False
    """Whether only the demo runs it; such an image is built when it is named."""

    @property
    def dockerfile(self) -> str:
        """Path below the root of the repository."""
        return f"{self.folder}/Dockerfile"


IMAGES = (
    Image("operator", "operator"),
    Image("gateway", "gateway"),
    Image("model-downloader", "inference-images/model-downloader"),
    Image("diffusion", "inference-images/diffusion", torch=True),
    Image("speech-recognition", "inference-images/speech-recognition", torch=True),
    Image("speech-synthesis", "inference-images/speech-synthesis", torch=True),
    Image("vision", "inference-images/vision", torch=True),
    Image("demo-weights", "scripts/lib/demo/images/weights", version_of="scripts/lib/weights", demo=True),
    Image("demo-stores", "scripts/lib/demo/images/stores", version_of="gateway", demo=True),
)


def select(names: list[str]) -> tuple[Image, ...]:
    """The named images, all of the product if none is named, in the order of the catalogue.

    Raises:
        ImagesError: If there is no image of a name.
    """
    unknown = set(names) - {image.name for image in IMAGES}
    if unknown:
        known = ", ".join(image.name for image in IMAGES)
        raise ImagesError(f"no such image: {', '.join(sorted(unknown))}; there are {known}")
    return tuple(image for image in IMAGES if (image.name in names if names else not image.demo))


def version_of(root: Path, image: Image) -> str:
    """The version in the image's pyproject.toml, which is also its tag."""
    path = root / (image.version_of or image.folder) / "pyproject.toml"
    try:
        version = tomllib.loads(path.read_text())["project"]["version"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise ImagesError(f"{path} does not tell the version of the image: {error!r}") from error
    return str(version)


def content_id(root: Path, image: Image, arguments: Mapping[str, str]) -> str:
    """Names what an image is made of: Dockerfile, the files that it copies, and the build's arguments.

    Args:
        root: The repository.
        image: The image.
        arguments: Build arguments and whatever else decides the result, such as the base image's recipe.

    Returns:
        16 hex digits; equal content gives equal digits in every checkout.

    Raises:
        ImagesError: If a file that the Dockerfile copies is missing.
    """
    digest = hashlib.sha256()

    def add(label: str, content: bytes) -> None:
        digest.update(f"{label}\0{len(content)}\0".encode() + content)

    add("recipe", str(_RECIPE).encode())
    for name, value in sorted(arguments.items()):
        add(f"argument {name}", value.encode())
    dockerfile = (root / image.dockerfile).read_text()
    add("Dockerfile", dockerfile.encode())
    for source in copied(dockerfile, arguments):
        for path in _files(root / source, image):
            executable = "x" if path.stat().st_mode & 0o100 else "-"
            add(f"file {executable} {path.relative_to(root).as_posix()}", path.read_bytes())
    return digest.hexdigest()[:16]


def copied(dockerfile: str, arguments: Mapping[str, str]) -> list[str]:
    """The paths that a Dockerfile copies out of the repository, with ${NAME} replaced by build arguments."""
    joined = re.sub(r"\\\n\s*", " ", dockerfile)
    found: list[str] = []
    for line in joined.splitlines():
        words = line.split()
        if words[:1] != ["COPY"] or any(word.startswith("--from=") for word in words):
            continue
        sources = [word for word in words[1:-1] if not word.startswith("--")]
        found += [re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], source) for source in sources]
    return found


def _files(path: Path, image: Image) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file() and not _IGNORED.intersection(file.parts) and file.suffix != ".pyc"
    ]
    if not found:
        raise ImagesError(f"{path} is copied by {image.dockerfile}, and there is nothing there")
    yield from found
