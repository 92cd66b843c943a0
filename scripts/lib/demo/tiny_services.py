"""The demo's AIServices on tiny models with random weights, as manifests: their files' digests are known once made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER = "http://weights.aiservice-demo.svc.cluster.local"


@dataclass(frozen=True)
class TinyService:
    """One AIService of the demo."""

    name: str
    model: str
    """What weights/tiny.py calls the model; also the name of its folder."""
    environment: str
    """Python environment that holds the libraries which write it, and the image that reads it."""
    tasks: tuple[str, ...]
    default: bool = True
    """Whether the gateway takes it for its tasks where a request names no service."""


TINY = (
    TinyService("stable-diffusion", "sdxl", "diffusion", ("text-to-image", "image-to-image")),
    TinyService("xtts", "xtts", "speech-synthesis", ("text-to-speech",)),
    TinyService("blip-2", "blip-2", "vision", ("image-to-text",), default=False),
)


def read_sums(weights: Path) -> dict[str, str]:
    """Returns the SHA-256 of each prepared file, by its path below the folder."""
    lines = (weights / "SHA256SUMS").read_text().splitlines()
    return {path: digest for digest, path in (line.split("  ", 1) for line in lines)}


def manifests(sums: Mapping[str, str], services: Sequence[TinyService] = TINY) -> dict[str, Any]:
    """Returns a List of AIServices that fetch their models from the demo's server."""
    return {"apiVersion": "v1", "kind": "List", "items": [manifest(service, sums) for service in services]}


def manifest(service: TinyService, sums: Mapping[str, str]) -> dict[str, Any]:
    """Returns one AIService.

    Raises:
        ValueError: No file of its model was prepared.
    """
    folder = f"tiny/{service.model}/"
    files = [
        {"url": f"{SERVER}/{path}", "path": path.removeprefix(folder), "sha256": digest}
        for path, digest in sorted(sums.items())
        if path.startswith(folder)
    ]
    if not files:
        raise ValueError(f"no file of {folder} was prepared")
    return {
        "apiVersion": "aiservice.dev/v1alpha1",
        "kind": "AIService",
        "metadata": {"name": service.name},
        "spec": {
            "tasks": list(service.tasks),
            "model": {"http": {"files": files}, "storage": {"size": "1Gi"}},
            "profile": "cpu",
            "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "3Gi"}},
            "gateway": {"default": service.default},
        },
    }
