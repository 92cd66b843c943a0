"""The only module that runs kubectl. Its errors become ours here."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shutil import which
from urllib.parse import urlencode

from aiservice_kubectl.errors import ClusterError, RefusedError
from aiservice_operator.kinds import Json

INTERRUPTED = 130
"""Exit code of what the user stops by Ctrl-C."""
_REQUEST_SECONDS = 30
_FROM_SERVER = re.compile(r"^Error from server(?: \((\w+)\))?: (.*)", re.DOTALL)
_WHERE = re.compile(r'^error when (?:creating|replacing) "STDIN": ')
_UNKNOWN_FIELD = re.compile(r"^.*strict decoding error: ", re.DOTALL)
_INVALID = re.compile(r"^The \w+ \"[^\"]*\" is invalid: ?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with the flags that say which cluster is meant."""

    context: str | None = None
    kubeconfig: str | None = None

    def namespace(self) -> str:
        """Returns the namespace of the current context."""
        return self._run("config", "view", "--minify", "-o", "jsonpath={..namespace}").strip() or "default"

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        """Returns what the API server answers to a GET.

        Raises:
            RefusedError: it said no.
            ClusterError: it could not be asked.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        found: Json = json.loads(self._run("get", "--raw", target, f"--request-timeout={_REQUEST_SECONDS}s"))
        return found

    def dry_run(self, manifest: Json, namespace: str) -> None:
        """Lets the API server judge an object, as one that is new or takes the place of the one that is there.

        An apply would be merged with the fields of the live object, and so be judged by what is in neither. Nothing is
        stored.

        Raises:
            RefusedError: it would not be accepted; the message says why, field by field.
            ClusterError: the API server could not be asked.
        """
        try:
            self._judge("create", manifest, namespace)
        except RefusedError as refused:
            if refused.reason != "AlreadyExists":
                raise
            self._judge("replace", manifest, namespace)

    def _judge(self, verb: str, manifest: Json, namespace: str) -> None:
        where = [f"--namespace={namespace}", f"--request-timeout={_REQUEST_SECONDS}s", "--filename=-"]
        self._run(verb, "--dry-run=server", "--validate=strict", *where, stdin=json.dumps(manifest))

    def pass_through(self, arguments: Sequence[str]) -> int:
        """Runs kubectl on the user's terminal and returns its exit code."""
        try:
            return subprocess.run(self._command(*arguments), check=False).returncode
        except KeyboardInterrupt:
            return INTERRUPTED

    def _command(self, *arguments: str) -> list[str]:
        program = which("kubectl")
        if program is None:
            raise ClusterError("there is no kubectl on the PATH: install it, or add its folder to PATH")
        where = [f"--{flag}={value}" for flag, value in self._where().items() if value is not None]
        return [program, *where, *arguments]

    def _where(self) -> dict[str, str | None]:
        return {"context": self.context, "kubeconfig": self.kubeconfig}

    def _run(self, *arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(self._command(*arguments), input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise error(done.stderr)
        return done.stdout


def error(said: str) -> ClusterError:
    """Returns what kubectl printed, as an error of ours."""
    words = "\n".join(line for line in said.strip().splitlines() if not line.startswith("Warning: "))
    words = words.removeprefix("error: ")
    if found := _FROM_SERVER.match(words):
        return RefusedError(_UNKNOWN_FIELD.sub("", _WHERE.sub("", found[2])), found[1] or "")
    if found := _INVALID.match(words):
        return RefusedError(found[1], "Invalid")
    return ClusterError(f"the cluster could not be asked; kubectl says: {words}")
