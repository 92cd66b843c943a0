"""The options, the same for bash and PowerShell. Standard library only: --help needs no environment."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ai_models import catalog

_FOLDER = "models"
_PROGRAM = "download-ai-models.sh"
_OPTION = re.compile(r"(?<![\w-])--([a-z]+(?:-[a-z]+)*)")

DESCRIPTION = """\
Downloads the models of the five tasks onto this machine, for Docker Compose or for a network without Internet:
those of all tasks, or of the tasks and models named.

What is there already is not fetched again. A download that was broken off, however it ended, goes on where it was.
Every file is checked against the digest that the Hub lists, and a model appears in its folder when all of it is there.
"""

_EPILOG = """\
tasks and their models:
{tasks}

models:
{models}

examples:
  {program}                                   all five tasks
  {program} --dry-run                         which files, how large; nothing is written
  {program} speech-to-text image-to-text      two tasks
  {program} faster-whisper-large-v3           one model that is not a task's default
  {program} --folder /mnt/disk/models --accept-licences
  {program} --verify                          hash what is there, and fetch again what is damaged

environment:
  HF_TOKEN      access token for the Hugging Face Hub: for gated repositories, and for its limits on the nameless
  HF_ENDPOINT   a mirror of the Hub, for example https://hub.corp.example
  HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE as usual; HF_HUB_DISABLE_XET=1 has large files come over plain HTTP

exit status:
  0  all is there          2  something must be changed first: names, the folder, the token, room on the disk
  1  failed, and may       3  a licence was not accepted; nothing was fetched
     succeed later         130, 143  stopped (Ctrl+C, SIGTERM); the next run goes on from there
"""


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    names: tuple[str, ...]
    """Tasks and models; none: all tasks."""
    folder: Path
    dry_run: bool
    accept_licences: bool
    verify: bool


def program_name(environ: Mapping[str, str]) -> str:
    """How the user calls this program; the script that starts it says so."""
    return environ.get("AI_MODELS_PROGRAM") or _PROGRAM


def spelled(text: str, program: str) -> str:
    """A text with its options as they are spelled where it is read: `--dry-run` is `-DryRun` in PowerShell."""
    if not program.endswith(".ps1"):
        return text
    return _OPTION.sub(lambda match: f"-{match[1].title().replace('-', '')}", text)


class _Parser(argparse.ArgumentParser):
    """Spells options in help and errors as the user does."""

    def format_help(self) -> str:
        return spelled(super().format_help(), self.prog)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {spelled(message, self.prog)}\n{spelled('--help tells all.', self.prog)}\n")


def parser(program: str) -> argparse.ArgumentParser:
    """The parser; `program` is how the user calls it."""
    made = _Parser(
        prog=program,
        usage=f"{program} [options] [TASK or MODEL ...]",
        description=DESCRIPTION,
        epilog=_EPILOG.format(program=program, tasks=_tasks(), models=_models()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("names", nargs="*", metavar="TASK or MODEL", help="what to download (default: all five tasks)")
    made.add_argument(
        "--folder", type=Path, default=Path(_FOLDER), metavar="DIR", help=f"where to put them (default: {_FOLDER})"
    )
    made.add_argument("--dry-run", action="store_true", help="list files and sizes, and write nothing")
    made.add_argument(
        "--accept-licences",
        action="store_true",
        help="accept the licences that must be accepted (XTTS v2: non-commercial use only), without being asked",
    )
    made.add_argument("--verify", action="store_true", help="hash models that are there already, and mend them")
    return made


def parse(argv: list[str]) -> Options:
    """Reads the options; ends the process for --help (0) and for what is wrong (2)."""
    made = parser(program_name(os.environ))
    found = made.parse_intermixed_args(argv)
    try:
        catalog.choose(found.names)
    except ValueError as error:
        made.error(str(error))
    return Options(tuple(found.names), found.folder, found.dry_run, found.accept_licences, found.verify)


def _tasks() -> str:
    return "\n".join(f"  {task:<26}{', '.join(models)}" for task, models in catalog.DEFAULTS.items())


def _models() -> str:
    lines = []
    for model in catalog.MODELS:
        lines.append(f"  {model.name:<26}{model.title}")
        lines += [f"  {'':<26}from {part.repo}, into {part.folder}/" for part in model.parts]
        lines.append(f"  {'':<26}licence: {model.licence.name}")
    return "\n".join(lines)
