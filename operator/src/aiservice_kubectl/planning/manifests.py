"""Reading manifests as kubectl does: files, folders, standard input, several documents, Lists."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aiservice_api.v1alpha1 import API_VERSION
from aiservice_kubectl.errors import UsageError
from aiservice_operator.kinds import Json

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_KINDS = ("AIService", "ModelCache")


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a manifest."""

    source: str
    """Where it stands, for messages."""
    body: Json
    namespace: str

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.body["kind"])

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.body["metadata"]["name"])

    @property
    def title(self) -> str:
        """Which object it is, for messages."""
        return f"{self.kind} {self.name}"


def read_all(names: Sequence[str], namespace: str, *, enforced: bool) -> tuple[list[Document], list[str]]:
    """Returns the AIServices and ModelCaches of some files, and the titles of what else is in them.

    Args:
        names: Files, folders, or `-` for standard input.
        namespace: Of documents that name none.
        enforced: Whether that namespace was asked for, so that a document may not name another.

    Raises:
        UsageError: something cannot be read, is no object, or is in another namespace than asked for.
    """
    ours: list[Document] = []
    others: list[str] = []
    for source, text in _texts(names):
        for body in _objects(source, text):
            metadata = body.get("metadata")
            if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
                raise UsageError(f"{source}: an object of kind {body.get('kind')} has no metadata.name: give it one")
            title = f"{body.get('kind')} {metadata['name']}"
            if body.get("kind") not in _KINDS or not str(body.get("apiVersion", "")).startswith("aiservice.dev/"):
                others.append(title)
                continue
            if body["apiVersion"] != API_VERSION:
                raise UsageError(f"{source}: {title} is of {body['apiVersion']}: write {API_VERSION}")
            stated = metadata.get("namespace")
            if stated and enforced and stated != namespace:
                raise UsageError(
                    f"{source}: {title} is in namespace {stated}, and -n says {namespace}: leave one of them out"
                )
            ours.append(Document(source, body, str(stated or namespace)))
    return ours, others


def _texts(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        if name == "-":
            yield "standard input", sys.stdin.read()
            continue
        path = Path(name)
        files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES) if path.is_dir() else [path]
        if not files:
            raise UsageError(f"{name} holds no .yaml, .yml or .json file")
        for file in files:
            try:
                yield str(file), file.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"{file} cannot be read: {error}") from error


def _objects(source: str, text: str) -> Iterator[Json]:
    try:
        documents: list[Any] = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise UsageError(f"{source} is no YAML: {error}") from error
    for document in documents:
        if document is None:
            continue
        if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
            raise UsageError(f"{source} holds something that is no Kubernetes object: each needs apiVersion and kind")
        if document["kind"] == "List":
            yield from (item for item in document.get("items") or [] if isinstance(item, dict))
        else:
            yield document
