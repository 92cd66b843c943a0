"""Names, labels, annotations and hashes: the vocabulary that links children to their owners.

Children have their owner's name: the CRDs let an AIService have only a name that a Service may have, and a ModelCache
only one that leaves room for the suffixes of its Jobs and their pods. So every name is a label value as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from enum import StrEnum

from aiservice_api.labels import MANAGED_BY, MANAGED_BY_LABEL
from aiservice_api.v1alpha1 import GROUP, ModelCacheSpec
from aiservice_operator.kinds import Json

FIELD_MANAGER = MANAGED_BY
HANDOVER_MANAGER = f"{FIELD_MANAGER}-handover"
"""Owns a Deployment's number of pods from when the operator gives it up until an autoscaler changes it; also one that
changes while nothing else of the Deployment may."""

NAME_LABEL = "app.kubernetes.io/name"
INSTANCE_LABEL = "app.kubernetes.io/instance"
COMPONENT_LABEL = "app.kubernetes.io/component"
PART_OF_LABEL = "app.kubernetes.io/part-of"
SERVICE_APP = "aiservice"
CACHE_APP = "model-cache"
ENGINE_CONTAINER = "engine"
DOWNLOAD_CONTAINER = "downloader"
CONTAINERS = (ENGINE_CONTAINER, DOWNLOAD_CONTAINER)
SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
"""Label selector of everything that the operator made."""

FINALIZER = f"{GROUP}/in-use"
"""On a ModelCache while an AIService uses it."""

CACHE_ANNOTATION = f"{GROUP}/model-cache"
"""On serving pods: the ModelCache that they mount."""
DIGEST_ANNOTATION = f"{GROUP}/model-digest"
"""On serving pods: which content of the cache they mount, so that new content makes new pods."""
CACHE_LABEL = CACHE_ANNOTATION
"""On the pods that mount a ModelCache: which. Pods of a volume that is mounted on one node find each other by it."""
REFERENCES_ANNOTATION = f"{GROUP}/references"
"""On serving pods: hash of the Secrets and ConfigMaps that they name, so that new content makes new pods."""
SEEN_ANNOTATION = f"{GROUP}/references-seen"
"""On a Deployment whose pods have no such hash: the first one that could be told, from which a change is a change."""
POD_TEMPLATE_ANNOTATION = f"{GROUP}/template"
"""On a Deployment: hash of its pods, which tells one rollout from another."""
SCALING_ANNOTATION = f"{GROUP}/scaling"
"""On a Deployment: whether its number of pods was applied (`fixed`) or is an autoscaler's (`autoscaled`)."""
ROLLOUT_ANNOTATION = f"{GROUP}/rollout"
"""On a Deployment: what was decided, in JSON, when the rollout of its present pods began."""
APPLIED_ANNOTATION = f"{GROUP}/applied"
"""On every child: hash of what the operator applied, so that a field which it no longer wants is noticed."""
VERIFY_ANNOTATION = f"{GROUP}/verify"
"""On a ModelCache, set by people: any new value has its files compared with their digests again."""
MEASURED_ANNOTATION = f"{GROUP}/measured"
"""On a claim: how large its source said to be, in JSON, so that it is asked once."""
DOWNLOAD_ANNOTATION = f"{GROUP}/download"
"""On a claim: proof, in JSON, of the verified download that it holds."""
VERIFIED_ANNOTATION = f"{GROUP}/verified"
"""On a claim: when and how the files were last compared with their digests, in JSON."""
MODE_ANNOTATION = f"{GROUP}/mode"
REVISION_ANNOTATION = f"{GROUP}/revision"
NODES_ANNOTATION = f"{GROUP}/nodes"
"""On a Job of a ModelCache: the nodes with the devices of its users when it was made, which it was told to keep to."""
REQUEST_ANNOTATION = f"{GROUP}/verify-request"
SOURCE_ANNOTATION = f"{GROUP}/source-digest"
CLAIM_UID_ANNOTATION = f"{GROUP}/claim-uid"
TEMPLATE_ANNOTATION = f"{GROUP}/template-digest"
ATTEMPT_ANNOTATION = f"{GROUP}/attempt"
EARLIER_PODS_ANNOTATION = f"{GROUP}/earlier-pods"
"""On a Job of a ModelCache: what it does, at which pinned revision, which wish for verification it answers, for which
source, on which claim, by which template, which try it is, and how many pods tried before it."""


class Mode(StrEnum):
    """What a Job of a ModelCache does, as the downloader takes it."""

    MEASURE = "measure"
    DOWNLOAD = "download"
    VERIFY = "verify"


_LISTED = 10
_SECRETS = {"huggingFace": "tokenSecretRef", "s3": "credentialsSecretRef", "oci": "pullSecretRef"}
"""The field of each source that names a Secret."""


def digest(value: object, length: int = 16) -> str:
    """Returns the first `length` hex digits of the SHA-256 of the value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def cache_name(spec: ModelCacheSpec) -> str:
    """Returns the name of the ModelCache for a model stated inline: the same for all who state the same model."""
    return f"mc-{digest(_stated(spec))}"


def source_wire(spec: ModelCacheSpec) -> Json:
    """Returns the wire form of what is to be downloaded, as the downloader takes it."""
    return _content(spec.to_wire())


def source_digest(spec: ModelCacheSpec) -> str:
    """Returns the identity of the content that a ModelCache asks for."""
    return digest(_content(_stated(spec)))


def _stated(spec: ModelCacheSpec) -> Json:
    """Fields at their default do not count, so a field that a later version adds changes no name and no digest."""
    return spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)


def _content(wire: Json) -> Json:
    """Where and how long files are kept, and which Secret opens them, does not change them."""
    for field in ("storage", "retention", "verify"):
        wire.pop(field, None)
    for source, secret in _SECRETS.items():
        wire.get(source, {}).pop(secret, None)
    return wire


def listed(found: Iterable[str]) -> str:
    """Returns names for a message: of many the first, and how many more there are, since messages are cut."""
    known = list(found)
    more = len(known) - _LISTED
    return ", ".join(known[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def job_name(cache: str, identity: list[str | int]) -> str:
    """Returns the name of a cache's Job: the cache's, and a suffix from what tells it from the cache's other Jobs."""
    return f"{cache}-{digest(identity, 6)}"


def service_labels(owner: str) -> dict[str, str]:
    """Returns the labels of an AIService's children and pods."""
    return {**workload_selector(owner), **_common("workload")}


def workload_selector(owner: str) -> dict[str, str]:
    """Returns the labels that select an AIService's pods. Deployments never let them change: nor may this."""
    return {NAME_LABEL: SERVICE_APP, INSTANCE_LABEL: owner}


def cache_labels(owner: str) -> dict[str, str]:
    """Returns the labels of a ModelCache's children and pods, and of a ModelCache that the operator made."""
    return {NAME_LABEL: CACHE_APP, INSTANCE_LABEL: owner, **_common("cache")}


def _common(component: str) -> dict[str, str]:
    return {COMPONENT_LABEL: component, PART_OF_LABEL: "aiservice", MANAGED_BY_LABEL: MANAGED_BY}
