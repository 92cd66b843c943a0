"""The real Prisma, from npm: its client, and its schema engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support import npm

_ROOT = Path(__file__).parents[2]
_DATA = _ROOT / "tests" / "data" / "prisma"
_HEAD = """
generator client {
  provider = "prisma-client-js"
  output   = "./generated"
}

datasource db {
  provider = "postgresql"
}
"""


def documented_model() -> str:
    """The model of docs/nextjs.md."""
    found = re.search(r"```prisma\n(.*?)```", (_ROOT / "docs" / "nextjs.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


class Prisma:
    """An application's Prisma in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        packages = npm.installed(_DATA)
        self._program = npm.own_node(packages)
        folder.joinpath("node_modules").symlink_to(packages / "node_modules")
        for script in _DATA.glob("*.mjs"):
            shutil.copy(script, folder)

    def generate(self, model: str) -> None:
        """`prisma generate`."""
        self._write(model)
        self._node("node_modules/prisma/build/index.js", "generate", "--config", "prisma.config.mjs")

    def push(self, database: str, model: str) -> Any:
        """`prisma db push`; returns what was missing, as SQL, and what was done, would be lost or cannot be done."""
        self._write(model)
        return json.loads(self._node("push.mjs", "schema.prisma", DATABASE_URL=database))

    def client(self, database: str, tenant: str, record: str) -> Any:
        """Reads and writes with the generated client; see client.mjs."""
        return json.loads(self._node("client.mjs", tenant, record, DATABASE_URL=database))

    def _write(self, model: str) -> None:
        self._folder.joinpath("schema.prisma").write_text(_HEAD + model)

    def _node(self, *arguments: str, **variables: str) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "TZ": "Asia/Kolkata",  # what is stored as UTC must be read as UTC elsewhere, too
            "CHECKPOINT_DISABLE": "1",
            # Generating needs no native engine, and the CLI would fetch one all the same unless it is told of a file.
            "PRISMA_SCHEMA_ENGINE_BINARY": "/bin/false",
            **variables,
        }
        done = subprocess.run(
            [self._program, *arguments],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            pytest.fail(f"node {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout
