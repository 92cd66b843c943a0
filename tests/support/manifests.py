"""Good AIService, ModelCache and AITenant manifests, and small changes to them."""

import copy
from typing import Any

Manifest = dict[str, Any]
Change = tuple[str, Any]

ABSENT = object()
"""As the value of a change: take the field away."""


def ai_service(*changes: Change, name: str = "whisper") -> Manifest:
    """The smallest good AIService, with changes such as ("spec.replicas", 2)."""
    return changed(
        {
            "apiVersion": "aiservice.dev/v1alpha1",
            "kind": "AIService",
            "metadata": {"name": name},
            "spec": {
                "tasks": ["speech-to-text"],
                "model": {"huggingFace": {"repo": "openai/whisper-large-v3"}},
                "profile": "nvidia-l4",
            },
        },
        *changes,
    )


def model_cache(*changes: Change, name: str = "whisper") -> Manifest:
    """The smallest good ModelCache, with changes such as ("spec.storage.size", "5Gi")."""
    return changed(
        {
            "apiVersion": "aiservice.dev/v1alpha1",
            "kind": "ModelCache",
            "metadata": {"name": name},
            "spec": {"huggingFace": {"repo": "openai/whisper-large-v3"}},
        },
        *changes,
    )


def ai_tenant(*changes: Change, name: str = "acme") -> Manifest:
    """The smallest good AITenant, with changes such as ("spec.suspend", True)."""
    return changed(
        {"apiVersion": "aiservice.dev/v1alpha1", "kind": "AITenant", "metadata": {"name": name}, "spec": {}}, *changes
    )


def http_file(**fields: str) -> dict[str, str]:
    """A good entry of `http.files`, with some of its fields replaced."""
    return {"url": "https://files.example.com/model.pt", "path": "model.pt", "sha256": "0" * 64, **fields}


def changed(manifest: Manifest, *changes: Change) -> Manifest:
    """A copy of a manifest with the fields at dotted paths set, or removed where the value is ABSENT."""
    result = copy.deepcopy(manifest)
    for path, value in changes:
        *parents, last = path.split(".")
        holder = result
        for parent in parents:
            holder = holder.setdefault(parent, {})
        if value is ABSENT:
            del holder[last]
        else:
            holder[last] = value
    return result
