"""Next.js itself, from npm: an application with the example in it, built and served."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support import npm
from support.databases import free_port

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "nextjs"
APPLICATION = ROOT / "tests" / "data" / "nextjs-app"
_NEXT = "node_modules/next/dist/bin/next"
_START_SECONDS = 60
_STOP_SECONDS = 20


class NextApplication:
    """An application in a folder of its own, into which the example was copied as docs/nextjs.md says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "NEXT_TELEMETRY_DISABLED": "1"}
        packages = npm.installed(APPLICATION)
        self._node = npm.own_node(packages)
        shutil.copytree(APPLICATION, folder, dirs_exist_ok=True)
        for part in ("lib", "app/api/ai"):
            shutil.copytree(EXAMPLE / part, folder / part)
        # Next.js follows no link that leads out of the application. Linked files take no room and are not written to.
        ignored = shutil.ignore_patterns("node-linux-*")
        shutil.copytree(packages / "node_modules", folder / "node_modules", ignore=ignored, copy_function=_link)

    def build(self) -> str:
        """`next build`; returns what it prints."""
        done = subprocess.run(
            [self._node, _NEXT, "build"], cwd=self.folder, env=self._environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            pytest.fail(f"next build failed:\n{done.stdout}")
        return done.stdout

    @asynccontextmanager
    async def serving(self, settings: Mapping[str, str]) -> AsyncIterator[str]:
        """`next start` with these settings in `.env.local`; yields its address once it answers."""
        self.folder.joinpath(".env.local").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            self._node, _NEXT, "start", "--hostname", "127.0.0.1", "--port", str(port),
            cwd=self.folder, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        printed = process.stdout
        try:
            async with asyncio.timeout(_START_SECONDS):
                while b"Ready in" not in (line := await printed.readline()):
                    assert line, "next start ended"
            reading = asyncio.create_task(printed.read())  # a full pipe would stop it
            yield f"http://127.0.0.1:{port}"
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        await reading


def _link(source: str, target: str) -> None:
    """Links a file, or copies it where it is on another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
