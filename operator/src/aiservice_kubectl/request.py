"""What every command gets: the command line, the cluster, the terminal and the time."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiservice_kubectl.cluster import Cluster
from aiservice_kubectl.text import Paint


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the plugin."""

    options: Namespace
    cluster: Cluster
    paint: Paint
    width: int
    """Columns of the terminal, for what is wrapped."""
    now: datetime

    @property
    def scope(self) -> str | None:
        """The namespace that is asked about; None: all."""
        return None if getattr(self.options, "all_namespaces", False) else self.namespace

    @property
    def namespace(self) -> str:
        """The namespace that is asked about, where it is one."""
        stated: str | None = self.options.namespace
        return stated or self.cluster.kubectl.namespace()

    @property
    def as_json(self) -> bool:
        """Whether a program reads the answer."""
        return getattr(self.options, "output", None) == "json"

    def say(self, text: str) -> None:
        """Prints to where answers go."""
        sys.stdout.write(f"{text}\n")

    def note(self, text: str) -> None:
        """Prints to where remarks go, which no program reads."""
        sys.stderr.write(f"{text}\n")

    def say_json(self, value: Any) -> None:
        """Prints an answer for programs."""
        self.say(json.dumps(value, indent=2, default=str))
