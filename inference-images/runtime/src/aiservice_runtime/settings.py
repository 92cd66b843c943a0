"""Settings of an inference container: AISERVICE_* variables, and the same as command line arguments.

An engine with settings of its own subclasses RuntimeSettings; descriptions of the fields are the --help text.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TypeVar

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from aiservice_runtime.cpus import available_cpus
from aiservice_runtime.errors import FatalError

ENV_PREFIX = "AISERVICE_"

Precision = Literal["auto", "fp32", "fp16", "bf16", "int8", "int4"]


def _comma_list(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _comma_map(value: object) -> object:
    if isinstance(value, str):
        return dict(part.strip().partition("=")[::2] for part in value.split(",") if part.strip())
    return value


class RuntimeSettings(BaseSettings):
    """What every inference container can be told."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="ignore", frozen=True)

    name: str = Field("", description="name of the AIService, for the log")
    namespace: str = Field("", description="namespace of the AIService, for the log")
    tasks: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_list)] = Field(
        (), description="tasks to serve, separated by commas; all that the engine knows when empty"
    )
    model_dir: Path = Field(Path("/models"), description="folder that holds the model")
    precision: Precision = Field(
        "auto", description="number format of the weights: auto, fp32, fp16, bf16, int8 or int4"
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="where the model runs: cpu or cuda")
    host: str = Field("", description="address to listen on; every address, IPv4 and IPv6, when empty")
    ports: Annotated[dict[str, Annotated[int, Field(ge=0, le=65535)]], NoDecode, BeforeValidator(_comma_map)] = Field(
        {}, description="other ports than the standard ones, as task=port separated by commas; 0 takes a free port"
    )
    threads: int = Field(
        default_factory=available_cpus,
        ge=1,
        description="threads of one computation; the container's CPUs when not given",
    )
    queue_size: int = Field(
        8, ge=0, description="requests held beside those that run; more are answered 503 before their body is read"
    )
    max_batch: int | None = Field(
        None, ge=1, le=64, description="most results computed at once; what the engine thinks best when not given"
    )
    batch_window_ms: float = Field(
        10,
        ge=0,
        le=60_000,
        description="milliseconds that a batch with room waits for requests that are on their way; "
        "for clients that were answered together up to 5 times as long, a twentieth of their batch's time at most",
    )
    max_body_mib: int = Field(64, ge=1, description="largest request body in MiB; larger ones are answered 413")
    receive_seconds: float = Field(120, gt=0, description="seconds in which the request body must have arrived")
    request_seconds: float = Field(
        600, gt=0, description="seconds in which a request must be answered, waiting included"
    )
    drain_seconds: float = Field(
        30, gt=0, description="seconds that requests in flight get to finish after SIGTERM before the process exits"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")


SettingsT = TypeVar("SettingsT", bound=RuntimeSettings)


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument like every other fatal error, not with a usage text and exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise FatalError(f"Wrong argument: {message}. Run with --help for the list.")


def parse_settings(kind: type[SettingsT], arguments: Sequence[str], *, description: str) -> SettingsT:
    """Reads settings from arguments (they win) and AISERVICE_* variables.

    Raises FatalError with a sentence that names the wrong setting. `--help` prints and exits.
    """
    parser = _Parser(
        prog=f"python -m {kind.__module__.partition('.')[0]}",
        description=description,
        epilog=f"Each argument can be given as a variable too: --queue-size is {ENV_PREFIX}QUEUE_SIZE.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for name, field in kind.model_fields.items():
        default = "" if field.is_required() or field.default_factory else _shown(field.default)
        parser.add_argument(
            "--" + name.replace("_", "-"),
            metavar="VALUE",
            help=f"{field.description}{default}".replace("%", "%%"),
        )
    given = vars(parser.parse_args(arguments))
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        source = "--" + name.replace("_", "-") if name in given else ENV_PREFIX + name.upper()
        raise FatalError(f"Wrong setting {source}={first['input']!r}: {first['msg']}.") from None


def _shown(default: object) -> str:
    return "" if default in ("", (), {}, None) else f" (default: {default})"
