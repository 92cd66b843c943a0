"""The archive for krew: reproducible, and started by whatever Python the host has."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
import yaml

from plugin.build import HERE, PLATFORMS, krew_manifest, pack, version
from support.cluster import REPOSITORY


def filled(folder: Path) -> Path:
    """What an archive holds, with a library that only says how it was called."""
    library = folder / "lib/aiservice_kubectl"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("")
    (library / "__main__.py").write_text("import sys\ndef main():\n    print(*sys.argv[1:], sep='|')\n    return 3\n")
    for name in ("kubectl-ais", "start.py"):
        (folder / name).write_bytes((HERE / name).read_bytes())
    (folder / "kubectl-ais").chmod(0o755)
    return folder


def test_the_same_files_give_the_same_archive(tmp_path: Path) -> None:
    one, two = filled(tmp_path / "one"), filled(tmp_path / "two")
    os.utime(two / "start.py", (1, 1))
    assert pack(one) == pack(two)
    with tarfile.open(fileobj=BytesIO(pack(one))) as archive:
        modes = {item.name: item.mode for item in archive.getmembers()}
    assert modes["kubectl-ais"] == 0o755
    assert modes["lib/aiservice_kubectl/__main__.py"] == 0o644


@pytest.mark.parametrize("absolute", [True, False])
def test_it_starts_through_the_link_that_krew_makes(tmp_path: Path, absolute: bool) -> None:
    folder = filled(tmp_path / "store")
    link = tmp_path / "bin/kubectl-ais"
    link.parent.mkdir()
    link.symlink_to(folder / "kubectl-ais" if absolute else Path("../store/kubectl-ais"))
    done = subprocess.run([link, "why", "a b"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "why|a b\n", "")


def test_a_host_without_python_is_told(tmp_path: Path) -> None:
    folder = filled(tmp_path / "store")
    old = tmp_path / "bin/python3"
    old.parent.mkdir()
    for name in ("sh", "dirname", "readlink"):
        (old.parent / name).symlink_to(subprocess.check_output(["which", name], text=True).strip())
    old.write_text("#!/bin/sh\nexit 1\n")  # as a Python does that is too old
    old.chmod(0o755)
    done = subprocess.run(
        [folder / "kubectl-ais"], env={"PATH": str(old.parent)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "it needs Python 3.11, 3.12, 3.13 or 3.14" in done.stderr


def test_krews_manifest(tmp_path: Path) -> None:
    archives = []
    for platform in PLATFORMS:
        path = tmp_path / f"kubectl-ais-{platform.name}.tar.gz"
        path.write_text(platform.name)
        archives.append((platform, path))
    text = krew_manifest("1.2.3", "https://example.com/v1/", "https://example.com", archives)
    assert "$" not in text.partition("apiVersion")[2]
    manifest = yaml.safe_load(text)
    assert manifest["metadata"]["name"] == "ais"
    assert (manifest["spec"]["version"], manifest["spec"]["homepage"]) == ("v1.2.3", "https://example.com")
    assert len(manifest["spec"]["platforms"]) == 4
    first = manifest["spec"]["platforms"][0]
    assert first["selector"] == {"matchLabels": {"os": "linux", "arch": "amd64"}}
    assert first["uri"] == "https://example.com/v1/kubectl-ais-linux-amd64.tar.gz"
    assert first["sha256"] == sha256(b"linux-amd64").hexdigest()


def test_one_version() -> None:
    said = subprocess.check_output([sys.executable, "-m", "aiservice_kubectl", "--version"], text=True)
    assert said.strip() == version()


def test_the_plugin_needs_only_what_its_archive_brings() -> None:
    """Every library of the archive is locked; what only the operator needs is not loaded by any command."""
    locked = (REPOSITORY / "scripts/lib/plugin/requirements.txt").read_text()
    assert "kopf" not in locked
    code = (
        "import sys\n"
        "from aiservice_kubectl.commands import caches, logs, plan, status, why\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'kopf', 'uvloop', 'prometheus_client'})"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == ""
