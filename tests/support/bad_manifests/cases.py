"""What a case is, and the manifests that most of them begin with."""

from __future__ import annotations

from typing import Any, NamedTuple

from support.manifests import Manifest, ai_service, model_cache

ELSEWHERE = {"name": "theirs", "namespace": "another-team"}
"""A reference to a Secret of another namespace, which no field of the API may be."""


class Case(NamedTuple):
    """A bad manifest, and what the refusal must say."""

    name: str
    manifest: Manifest
    sentences: tuple[str, ...]


def bad(name: str, manifest: Manifest, *sentences: str) -> Case:
    """One case: its name, the manifest, and what the refusal must say."""
    return Case(name, manifest, sentences)


def service_with(**spec: Any) -> Manifest:
    """The smallest good service with some fields of its spec replaced."""
    return ai_service(*((f"spec.{field}", value) for field, value in spec.items()))


def service_with_pod(**overrides: Any) -> Manifest:
    """A service with these pod overrides."""
    return service_with(pod=overrides)


def cache_of(source: str, **fields: Any) -> Manifest:
    """A cache of one source."""
    return model_cache(("spec", {source: fields}))


def hub(**fields: Any) -> Manifest:
    """A cache of a good repository, with some of the source's fields replaced."""
    return cache_of("huggingFace", **{"repo": "a/b", **fields})


def bucket(**fields: Any) -> Manifest:
    """A cache of a good bucket, with some of the source's fields replaced."""
    return cache_of("s3", **{"bucket": "models", **fields})


def image(name: str, **fields: Any) -> Manifest:
    """A cache of an image."""
    return cache_of("oci", image=name, **fields)


def files(*entries: dict[str, Any]) -> Manifest:
    """A cache of files."""
    return cache_of("http", files=list(entries))
