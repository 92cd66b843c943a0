"""Container images of one static program, made without a container engine. Every pod needs one: pause."""

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path
from typing import BinaryIO


def write_image(archive: BinaryIO, program: Path, reference: str) -> None:
    """Write an image with nothing in it but a static program, which it runs, in the format of `docker save`.

    It runs as a user without rights unless a pod says otherwise.
    """
    layer = _tar({program.name: (program.read_bytes(), 0o755)})
    config = json.dumps(
        {
            "architecture": _architecture(),
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]).encode()
    files = {"manifest.json": manifest, "config.json": config, "layer.tar": layer}
    archive.write(_tar({name: (content, 0o644) for name, content in files.items()}))


def archive_digest(archive: Path) -> str | None:
    """Name the content of an archive of images: by its index, or by the list of images and their configurations.

    Returns:
        64 hex digits, or None of a file that is no such archive.
    """
    try:
        with tarfile.open(archive) as opened:
            if "manifest.json" in opened.getnames():
                listed = _member(opened, "manifest.json")
                # A configuration names the layers by their content; what the list calls them tells nothing.
                configurations = [_member(opened, image["Config"]) for image in json.loads(listed)]
                return hashlib.sha256(b"".join([listed, *configurations])).hexdigest()
            return hashlib.sha256(_member(opened, "index.json")).hexdigest()
    except (tarfile.TarError, KeyError, ValueError):
        return None


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    content = archive.extractfile(name)
    if content is None:
        raise KeyError(name)
    return content.read()


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    """A tar archive of the files, given by name with content and mode. The same files give the same archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
