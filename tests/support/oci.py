"""Runs images as the cluster does: not as root, with a read-only root file system, no capabilities and no network.

The image is unpacked from its tar (as scripts/images writes it) and run by runc, without a daemon. Needs root.
Standard library only, so that every environment can use it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_USER = 65532


@dataclass(frozen=True)
class Result:
    """How a command in a container ended."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class UnpackedImage:
    """An image whose files lie in a folder."""

    root: Path
    config: dict[str, Any]
    """The image's configuration: User, Env, Entrypoint and so on."""

    @cached_property
    def environ(self) -> dict[str, str]:
        """The environment that the image sets."""
        pairs = (entry.partition("=") for entry in self.config.get("Env", []))
        return {name: value for name, _, value in pairs}

    def run(self, bundles: Path, *command: str, env: dict[str, str] | None = None, timeout: float = 120) -> Result:
        """Runs a command in a fresh container.

        Args:
            bundles: A folder for what runc needs; it must be on a file system that allows devices.
            command: The command; none runs the image's entry point.
            env: Variables besides those of the image.
            timeout: Seconds after which the container is killed.
        """
        name = f"image-test-{uuid.uuid4().hex[:12]}"
        bundle = bundles / name
        bundle.mkdir()
        arguments = list(command) or list(self.config["Entrypoint"])
        spec = _spec(self.root, arguments, {**self.environ, **(env or {})})
        (bundle / "config.json").write_text(json.dumps(spec))
        runc = ["runc", "--root", str(bundle / "state")]
        try:
            done = subprocess.run(
                [*runc, "run", "--bundle", str(bundle), name],
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout,
            )
        finally:
            subprocess.run([*runc, "delete", "--force", name], capture_output=True, check=False)
            shutil.rmtree(bundle)
        return Result(done.returncode, done.stdout, done.stderr)


def unpack(tar: Path, target: Path) -> UnpackedImage:
    """Unpacks the image of a docker-archive, layer upon layer."""
    target.mkdir()
    with tarfile.open(tar) as archive:
        manifest = json.load(_member(archive, "manifest.json"))[0]
        config = json.load(_member(archive, manifest["Config"]))["config"]
        for layer in manifest["Layers"]:
            _apply(archive, layer, target)
    return UnpackedImage(target, config)


def _member(archive: tarfile.TarFile, name: str) -> Any:
    found = archive.extractfile(name)
    assert found is not None, name
    return found


def _apply(archive: tarfile.TarFile, layer: str, target: Path) -> None:
    """Unpacks one layer, and removes what it says is gone."""
    info = archive.getmember(layer)
    while info.issym():  # equal layers are kept once
        info = archive.getmember(os.path.normpath(Path(info.name).parent / info.linkname))
    with tarfile.open(fileobj=_member(archive, info.name)) as listing:
        gone = [Path(member.name) for member in listing if Path(member.name).name.startswith(_WHITEOUT)]
    for path in gone:
        folder = target / path.parent
        if path.name == _OPAQUE:
            shutil.rmtree(folder, ignore_errors=True)
            continue
        victim = folder / path.name.removeprefix(_WHITEOUT)
        if victim.is_dir() and not victim.is_symlink():
            shutil.rmtree(victim)
        else:
            victim.unlink(missing_ok=True)
    command = ["tar", "--extract", "--numeric-owner", "--preserve-permissions", f"--exclude={_WHITEOUT}*"]
    with subprocess.Popen([*command, "--directory", str(target)], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        shutil.copyfileobj(_member(archive, info.name), process.stdin)
        process.stdin.close()
    assert process.returncode == 0, layer


def _spec(root: Path, arguments: Sequence[str], environ: dict[str, str]) -> dict[str, Any]:
    """What runc is told: the restrictions of the project's pods."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": _USER, "gid": _USER},
            "args": list(arguments),
            "env": [f"{name}={value}" for name, value in environ.items()],
            "cwd": "/",
            "capabilities": {kind: [] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")},
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": True},
        "hostname": "image-test",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {
                "destination": "/tmp",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "nodev", "mode=1777"],
            },
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
            "maskedPaths": ["/proc/kcore", "/proc/keys"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
        },
    }
