"""Typed views of watched objects. With `states`, the one place that knows where in their JSON things are.

Children are kept as the API server sent them, because they are compared field by field with what is wanted; what
decisions and status read from them is parsed here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from aiservice_api.labels import MANAGED_BY, MANAGED_BY_LABEL
from aiservice_api.v1alpha1 import (
    AIServiceSpec,
    AIServiceStatus,
    ModelCacheSpec,
    ModelCacheStatus,
)
from aiservice_operator import names
from aiservice_operator.kinds import Json, Key, Kind, ObjectId


@dataclass(frozen=True, slots=True)
class Owner:
    """One entry of `metadata.ownerReferences`."""

    kind: str
    name: str
    uid: str
    controller: bool


@dataclass(frozen=True, slots=True)
class Meta:
    """What the operator reads from `metadata`."""

    name: str
    namespace: str
    uid: str
    version: int
    """`resourceVersion`. Kubernetes compares them as numbers since 1.35, and etcd has always counted so."""
    generation: int
    created: datetime
    deleting: bool
    labels: dict[str, str]
    annotations: dict[str, str]
    finalizers: tuple[str, ...]
    owners: tuple[Owner, ...]

    @property
    def controller(self) -> Owner | None:
        """The one owner that manages this object."""
        return next((owner for owner in self.owners if owner.controller), None)

    @property
    def ours(self) -> bool:
        """Whether the operator made it."""
        return self.labels.get(MANAGED_BY_LABEL) == MANAGED_BY

    @property
    def inline_cache(self) -> bool:
        """Whether this ModelCache is one that the operator made; a user's copy under another name is the user's."""
        return self.ours and self.labels.get(names.INSTANCE_LABEL) == self.name


@dataclass(frozen=True, slots=True)
class Child:
    """A watched object that the operator, or a controller below it, made."""

    kind: Kind
    meta: Meta
    body: Json

    @property
    def id(self) -> ObjectId:
        """Which object this is."""
        return ObjectId(self.kind, self.meta.namespace, self.meta.name)


Seniority = tuple[datetime, str, str]
"""What older means: by creation, then by namespace and name."""


@dataclass(frozen=True, slots=True)
class Service:
    """An AIService."""

    meta: Meta
    spec: AIServiceSpec | None
    """None where this version of the operator cannot read it; `invalid` says why."""
    cache_name: str | None
    """Name of the ModelCache that the spec asks for; None where the spec cannot be read."""
    status_json: str
    """As text: a thousand parsed statuses would take more memory than all else that is kept of their services."""
    invalid: str = ""

    @property
    def id(self) -> Key:
        """Which object this is."""
        return Key(Kind.AISERVICE, self.meta.namespace, self.meta.name)

    @property
    def seniority(self) -> Seniority:
        """Of two AIServices the older one has the smaller."""
        return self.meta.created, self.meta.namespace, self.meta.name

    @property
    def status(self) -> AIServiceStatus:
        """The status, parsed at each call."""
        return _status(AIServiceStatus, self.status_json)


@dataclass(frozen=True, slots=True)
class Cache:
    """A ModelCache."""

    meta: Meta
    spec: ModelCacheSpec | None
    """None where this version of the operator cannot read it; `invalid` says why."""
    status: ModelCacheStatus
    body: Json
    """As the API server sent it, to compare with what is wanted."""
    invalid: str = ""

    @property
    def id(self) -> Key:
        """Which object this is."""
        return Key(Kind.MODEL_CACHE, self.meta.namespace, self.meta.name)

    @property
    def has_own_claim(self) -> bool:
        """Whether it is on a claim of its name, and not on one that a `pvc` source names."""
        return self.spec is None or self.spec.pvc is None

    def same_for_users(self, other: Cache) -> bool:
        """Whether two states differ in nothing that an AIService depends on: who uses the cache does not count."""
        return (self.meta.uid, self.meta.generation, self.meta.deleting, _without_users(self.status)) == (
            other.meta.uid,
            other.meta.generation,
            other.meta.deleting,
            _without_users(other.status),
        )


def _without_users(status: ModelCacheStatus) -> ModelCacheStatus:
    return status.model_copy(update={"used_by": []})


Observed = Service | Cache | Child


def parse(kind: Kind, body: Json) -> Observed:
    """Parses an object of the API server, as it was sent or lean."""
    meta, body = parse_meta(body["metadata"]), lean(kind, body)
    status = json.dumps(body.get("status") or {})
    if kind is Kind.AISERVICE:
        stated = _stated(json.dumps(body.get("spec")))
        return Service(meta, stated.spec, stated.cache_name, status, stated.invalid)
    if kind is Kind.MODEL_CACHE:
        cache_status = _status(ModelCacheStatus, status)
        try:
            return Cache(meta, ModelCacheSpec.model_validate(body.get("spec")), cache_status, body)
        except ValidationError as error:
            return Cache(meta, None, cache_status, body, _explain(error))
    return Child(kind, meta, body)


class _Stated(NamedTuple):
    spec: AIServiceSpec | None
    cache_name: str | None
    invalid: str


_TYPE = frozenset({"apiVersion", "kind"})
"""Left out by lists, sent by watches: what is kept must not depend on who told of it."""
_STATUS_UNREAD = frozenset({Kind.SERVICE, Kind.DISRUPTION_BUDGET, Kind.NETWORK_POLICY})
"""Kinds whose status decides nothing: a budget's changes with every pod."""


@lru_cache(maxsize=1024)
def _stated(text: str) -> _Stated:
    """Parses the spec of an AIService; many have the same one, which is then parsed, named and kept once."""
    try:
        spec = AIServiceSpec.model_validate_json(text)
    except ValidationError as error:
        return _Stated(None, None, _explain(error))
    if spec.model is not None:
        return _Stated(spec, names.cache_name(spec.model), "")
    return _Stated(spec, spec.model_cache_ref.name if spec.model_cache_ref is not None else None, "")


def lean(kind: Kind, body: Json) -> Json:
    """Leaves out what nobody reads and what would double the memory of the store."""
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    if kind is not Kind.POD:
        unread = _TYPE | {"status"} if kind in _STATUS_UNREAD else _TYPE
        kept = {key: value for key, value in body.items() if key not in unread}
        if kind is Kind.AUTOSCALER:  # it measures every few seconds, which concerns nobody
            kept["status"] = {"conditions": body.get("status", {}).get("conditions", [])}
        return {**kept, "metadata": metadata}
    spec: Json = {"nodeName": body["spec"].get("nodeName", "")}
    if "overhead" in body["spec"]:
        spec["overhead"] = body["spec"]["overhead"]
    for field in ("initContainers", "containers"):
        if field in body["spec"]:
            spec[field] = [
                {key: container[key] for key in ("name", "image", "resources", "restartPolicy") if key in container}
                for container in body["spec"][field]
            ]
    return {"metadata": metadata, "spec": spec, "status": body.get("status", {})}


def parse_meta(metadata: Json) -> Meta:
    """Parses `metadata`."""
    return Meta(
        name=metadata["name"],
        namespace=metadata.get("namespace", ""),
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        generation=metadata.get("generation", 0),
        created=parse_time(metadata["creationTimestamp"]),
        deleting="deletionTimestamp" in metadata,
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        finalizers=tuple(metadata.get("finalizers") or ()),
        owners=tuple(
            Owner(owner["kind"], owner["name"], owner["uid"], owner.get("controller", False))
            for owner in metadata.get("ownerReferences") or ()
        ),
    )


def parse_time(text: str) -> datetime:
    """Parses a timestamp of Kubernetes."""
    return datetime.fromisoformat(text)


_Status = TypeVar("_Status", AIServiceStatus, ModelCacheStatus)


def _status(model: type[_Status], text: str) -> _Status:
    """Another version may have written a status that this one cannot read: it is computed anew."""
    try:
        return model.model_validate_json(text)
    except ValidationError:
        return model()


def _explain(error: ValidationError) -> str:
    return "; ".join(f"spec.{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())


def links(observed: Observed) -> frozenset[Key]:
    """Returns what this object belongs to, which must be reconciled when it appears, changes or goes."""
    meta = observed.meta
    if isinstance(observed, Service | Cache):
        return frozenset({observed.id})
    if observed.kind is Kind.POD:
        app, owner = meta.labels.get(names.NAME_LABEL), meta.labels.get(names.INSTANCE_LABEL)
        kind = {names.SERVICE_APP: Kind.AISERVICE, names.CACHE_APP: Kind.MODEL_CACHE}.get(app or "")
        return frozenset({Key(kind, meta.namespace, owner)}) if kind and owner else frozenset()
    controller = meta.controller
    if controller is None or controller.kind not in (Kind.AISERVICE, Kind.MODEL_CACHE):
        return frozenset()
    return frozenset({Key(Kind(controller.kind), meta.namespace, controller.name)})


def mounted_cache(deployment: Child) -> str | None:
    """Returns the name of the ModelCache that a Deployment's pods mount."""
    return _template_annotations(deployment).get(names.CACHE_ANNOTATION)


def mounted_digest(deployment: Child) -> str:
    """Returns the digest of the content that a Deployment's pods mount."""
    return _template_annotations(deployment).get(names.DIGEST_ANNOTATION, "")


def mounted_references(deployment: Child) -> str:
    """Returns the hash of the Secrets and ConfigMaps that a Deployment's pods were made with; empty: of none."""
    return _template_annotations(deployment).get(names.REFERENCES_ANNOTATION, "")


def seen_references(deployment: Child) -> str:
    """Returns the first hash of Secrets and ConfigMaps that could be told of pods without one; empty: none yet."""
    return deployment.meta.annotations.get(names.SEEN_ANNOTATION, "")


def _template_annotations(deployment: Child) -> dict[str, str]:
    annotations: dict[str, str] | None = deployment.body["spec"]["template"]["metadata"].get("annotations")
    return annotations or {}
