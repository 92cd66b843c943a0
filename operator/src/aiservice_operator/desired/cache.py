"""ModelCaches: the one made for models stated inline, and the finalizer on those that users made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from aiservice_api.v1alpha1 import ModelCacheSpec
from aiservice_operator import names
from aiservice_operator.desired.common import used_by
from aiservice_operator.kinds import Json
from aiservice_operator.observed import Meta


def inline_cache(
    namespace: str,
    name: str,
    spec: ModelCacheSpec,
    users: Sequence[Meta],
    labels: Mapping[str, str] = MappingProxyType({}),
) -> Json:
    """Builds the ModelCache that all AIServices which state this model share.

    It is owned by all of them, so that it goes with the last; one that is to outlive them is owned by nobody.

    Args:
        namespace: Of all of them.
        name: From the hash of the model.
        spec: The model.
        users: The AIServices.
        labels: Without which the operator would not see what it has made.
    """
    owners = [] if spec.retention is not None else users
    references = [used_by(user).model_dump(mode="json", by_alias=True, exclude_none=True) for user in owners]
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**labels, **names.cache_labels(name)},
            "ownerReferences": references,
            "finalizers": [names.FINALIZER] if users else [],
        },
        "spec": spec.to_wire(),
    }


def hold(cache: Meta, *, in_use: bool) -> Json:
    """Builds what the operator applies to a ModelCache that a user made: the finalizer while it is in use.

    The uid makes sure that it is this one: applied to one that has just gone, it would make a new, empty one.
    """
    finalizers = [names.FINALIZER] if in_use else []
    return {"metadata": {"name": cache.name, "namespace": cache.namespace, "uid": cache.uid, "finalizers": finalizers}}
