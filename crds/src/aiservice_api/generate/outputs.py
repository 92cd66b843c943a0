"""Which generated file has which content."""

from __future__ import annotations

from pathlib import PurePosixPath

import yaml

from aiservice_api.generate.definition import KINDS, Kind, definition
from aiservice_api.generate.reference import reference

COMMAND = "make generate"

CRD_FOLDERS = (PurePosixPath("crds"), PurePosixPath("charts/aiservice-operator/files/crds"))
"""Helm reads no file outside a chart, so the chart has a copy of its own."""


def outputs() -> dict[PurePosixPath, str]:
    """The text of every generated file, by its path below the repository's root."""
    files = {PurePosixPath("docs/api-reference.md"): reference(KINDS, COMMAND)}
    for kind in KINDS:
        text = crd_yaml(kind)
        files.update({folder / f"{kind.crd_name}.yaml": text for folder in CRD_FOLDERS})
    return files


def crd_yaml(kind: Kind) -> str:
    """The CRD of a kind as a YAML file."""
    header = f"# Generated from the Pydantic models in crds/src/aiservice_api by `{COMMAND}`. Do not edit.\n"
    return header + yaml.safe_dump(definition(kind), sort_keys=False, allow_unicode=True, width=110)
