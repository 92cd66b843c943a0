"""Whether a manifest would be accepted: by the API server where one is asked, else by the models of the API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from aiservice_api.v1alpha1 import AIService, ModelCache
from aiservice_kubectl.cluster import Cluster
from aiservice_kubectl.errors import ClusterError, RefusedError
from aiservice_kubectl.planning.manifests import Document

_MODELS: dict[str, type[AIService | ModelCache]] = {"AIService": AIService, "ModelCache": ModelCache}


_VERDICTS = frozenset({"Invalid", "BadRequest", "NotFound"})
_NO_RIGHT = re.compile(r'\S+(?: "[^"]*")? is forbidden: User ".*" cannot \w+ resource ', re.DOTALL)
"""How the API server begins where the user lacks a right; quotas and admission say Forbidden, too."""
_DENIED = re.compile(
    r"^admission webhook \"[^\"]*\" denied|ValidatingAdmissionPolicy '[^']*' with binding '[^']*' denied"
)
_RIGHTS = "\nA dry run takes the right to create and to update it; --offline --config FILE plans without"


def by_server(cluster: Cluster, document: Document) -> list[str]:
    """Returns why the API server would refuse a document; empty where it would accept it.

    Raises:
        ClusterError: it gave no verdict: it is busy, fails, or the user may not ask.
    """
    try:
        cluster.kubectl.dry_run(document.body, document.namespace)
    except RefusedError as error:
        if not is_verdict(error):
            raise ClusterError(
                f"whether {document.title} would be accepted cannot be told: {str(error).strip()}"
                f"{_RIGHTS if error.reason == 'Forbidden' else ''}"
            ) from error
        return [str(error).strip()]
    return []


def is_verdict(error: RefusedError) -> bool:
    """Whether an answer is about the object, not about the server or the user's rights."""
    words = str(error).strip()
    if error.reason == "Forbidden":
        return _NO_RIGHT.match(words) is None
    return error.reason in _VERDICTS or _DENIED.search(words) is not None


def by_models(document: Document) -> list[str]:
    """Returns what is wrong with a document as far as that shows without an API server.

    Types, ranges, required and unknown fields are checked; the rules between fields are the API server's.
    """
    try:
        read = _MODELS[document.kind].model_validate(document.body)
    except ValidationError as error:
        return [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
    if isinstance(read, AIService) and (read.spec.model is None) == (read.spec.model_cache_ref is None):
        return ["spec: set exactly one of model and modelCacheRef"]
    unknown = _unknown(document.body.get("spec") or {}, read.spec.to_wire(), "spec")
    return [f"{path}: there is no such field" for path in unknown]


def _unknown(stated: Any, read: Any, path: str) -> Iterator[str]:
    """The fields that were stated and not read."""
    if isinstance(stated, dict) and isinstance(read, dict):
        for key, value in stated.items():
            if key not in read and value is not None:
                yield f"{path}.{key}"
            elif key in read:
                yield from _unknown(value, read[key], f"{path}.{key}")
    elif isinstance(stated, list) and isinstance(read, list):
        for index, (one, other) in enumerate(zip(stated, read, strict=False)):
            yield from _unknown(one, other, f"{path}[{index}]")
