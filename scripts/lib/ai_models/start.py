"""Makes the program's Python environment where it is missing, and starts the program in it.

Runs before there is any package, on any system: standard library only. With uv where there is one, else with venv and
pip. The packages are those of requirements.txt, each by its hash.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

_LIB = Path(__file__).resolve().parent.parent
_ROOT = _LIB.parent.parent
_REQUIREMENTS = _LIB / "ai_models" / "requirements.txt"
_SOURCES = (_LIB, _ROOT / "inference-images" / "model-downloader" / "src")

_SUPPORTED = ((3, 11), (3, 14))
"""The first version of Python that will do, and the first that will not."""
_FALLBACK_PYTHON = "3.11"  # what uv looks for, or gets, where this Python will not do
_DIGITS = 12
_WINDOWS = os.name == "nt"


def environment_name(requirements: bytes, python: str) -> str:
    """The folder's name: other packages, another Python or another system make another environment."""
    stamp = hashlib.sha256(requirements + f"{python} {platform.system()} {platform.machine()}".encode())
    return f"ai-models-{stamp.hexdigest()[:_DIGITS]}"


def python_of(environment: Path) -> Path:
    """The interpreter of an environment."""
    return environment / ("Scripts/python.exe" if _WINDOWS else "bin/python")


def is_supported(version: tuple[int, int]) -> bool:
    """Whether the packages are there for a version of Python."""
    return _SUPPORTED[0] <= version < _SUPPORTED[1]


def find_uv(environ: Mapping[str, str]) -> str | None:
    """Where uv is: as the calling script says, or on the PATH."""
    return environ.get("AI_MODELS_UV") or shutil.which("uv")


def commands(uv: str | None, folder: Path) -> list[list[str]]:
    """What makes an environment in a folder.

    Raises:
        SystemExit: Where it cannot be made, with a sentence.
    """
    python = str(python_of(folder))
    fits = is_supported(sys.version_info[:2])
    if uv is not None:
        base = sys.executable if fits else _FALLBACK_PYTHON
        install = [uv, "pip", "install", "--quiet", "--python", python]
        return [
            [uv, "venv", "--quiet", "--no-project", "--python", base, str(folder)],
            [*install, "--require-hashes", "--no-deps", "-r", str(_REQUIREMENTS)],
        ]
    if not fits:
        raise SystemExit(
            f"error: Python {platform.python_version()} will not do: install Python 3.11, 3.12 or 3.13, or uv, which "
            "brings one."
        )
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return [
        [sys.executable, "-m", "venv", str(folder)],
        [*install, "--require-hashes", "--no-deps", "-r", str(_REQUIREMENTS)],
    ]


def ensure_environment(environ: Mapping[str, str]) -> Path:
    """The interpreter of the environment, which is made if it is not there."""
    name = environment_name(_REQUIREMENTS.read_bytes(), platform.python_version())
    home = _ROOT / ".venvs" / name
    if not python_of(home).exists():
        _make(find_uv(environ), home, environ)
    return python_of(home)


def _make(uv: str | None, home: Path, environ: Mapping[str, str]) -> None:
    new = home.with_name(f"{home.name}.new-{os.getpid()}")
    sys.stderr.write(f"Installing the Python packages of {_REQUIREMENTS.name} into {home}\n")
    # The requirement file decides; a user's own settings on versions must not.
    dropped = {"UV_CONSTRAINT", "UV_OVERRIDE", "PIP_CONSTRAINT", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"}
    clean = {key: value for key, value in environ.items() if key.upper() not in dropped}
    try:
        for command in commands(uv, new):
            subprocess.run(command, check=True, env=clean)
        new.rename(home)
    except subprocess.CalledProcessError as error:
        hint = "" if uv else " On Debian and Ubuntu the package python3-venv may be missing."
        raise SystemExit(f"error: {error.cmd[0]} failed to make the Python environment.{hint}") from None
    except OSError:
        if not python_of(home).exists():  # else another process was faster
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def start(python: Path, argv: list[str], environ: Mapping[str, str]) -> NoReturn:
    """Becomes the program; on Windows, which cannot, waits for it and ends as it does."""
    path = os.pathsep.join(str(source) for source in _SOURCES)
    command = [str(python), "-m", "ai_models", *argv]
    environ = {**environ, "PYTHONPATH": path}
    if not _WINDOWS:
        os.execve(python, command, environ)  # noqa: S606  the arguments are the user's own
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the program too, which tells it
    sys.exit(subprocess.run(command, env=environ, check=False).returncode)


def main(argv: list[str], environ: Mapping[str, str]) -> NoReturn:
    """Reads the options first: for --help, and for what is misspelt, nothing is installed."""
    sys.path[0] = str(_LIB)
    from ai_models.arguments import parse  # noqa: PLC0415  it is found only now

    parse(argv)
    start(ensure_environment(environ), argv, environ)


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
