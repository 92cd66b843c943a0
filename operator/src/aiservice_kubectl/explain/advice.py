"""What to do next, by the reason that a condition or a pod gives: messages say what, this adds how."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aiservice_operator.status.remedies import DOWNLOADING

_LOGS = "Read what the engine printed: kubectl ais logs {name} -n {namespace} --previous"
_DOWNLOAD_LOGS = "Read what the download printed: kubectl ais logs {name} -n {namespace} --download"
_RETRY = "To try the download again at once: kubectl delete job -n {namespace} -l app.kubernetes.io/instance={cache}"
_PODS = "app.kubernetes.io/instance={instance}"
_EDIT = "Change the spec: kubectl edit ais {name} -n {namespace}"
_IMAGE = (
    "To make a Secret for the registry: kubectl create secret docker-registry REGISTRY -n {namespace} "
    "--docker-server=HOST --docker-username=USER --docker-password=PASSWORD"
)
_REACH = (
    "See that the cluster lets pods of this namespace reach the source (NetworkPolicies, proxies, and the chart value "
    "download.allowedHosts)"
)
_OPERATOR = (
    "See whether the operator runs, and what it says: kubectl get pods -A -l "
    "app.kubernetes.io/name=aiservice-operator, then kubectl logs on the one that leads"
)
_PLAN = "Try the change before you make it: kubectl ais plan -f FILE"

ADVICE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "NotSeenYet": (
            _OPERATOR,
            "If it runs, look at its chart value watch.namespaces: it may not serve this namespace",
        ),
        "Outdated": (_OPERATOR,),
        "UnknownProfile": (_EDIT, _PLAN),
        "NoEngine": (_EDIT, _PLAN),
        "InvalidSpec": ("Upgrade the operator to the version of the CRDs: helm upgrade",),
        "InvalidResources": (_EDIT, _PLAN),
        "DoesNotFit": (_EDIT, _PLAN),
        "PrecisionNotServed": (_EDIT, _PLAN),
        "PortConflict": (_EDIT, _PLAN),
        "MountConflict": (_EDIT, _PLAN),
        "NoDynamicResources": (_EDIT, _PLAN),
        "CacheNotFound": ("Make the ModelCache {cache}, or correct spec.modelCacheRef", _EDIT),
        "Unschedulable": (
            "See who holds the GPUs: kubectl ais status -A",
            "See what is free on which node: kubectl ais plan -f FILE, or kubectl describe nodes",
            "Free a GPU (spec.suspend: true stops a service and keeps its model), or choose another profile",
        ),
        "PlacementConflict": ("Give the cache a StorageClass with ReadWriteMany: spec.model.storage.accessMode",),
        "ImagePullBackOff": (_EDIT, _IMAGE),
        "InvalidImageName": (_EDIT,),
        "CrashLoopBackOff": (_LOGS,),
        "OOMKilled": ("A smaller precision or model needs less", _EDIT),
        "CreateContainerConfigError": ("See what there is: kubectl get secrets,configmaps -n {namespace}",),
        "NotReady": (
            "See what it does: kubectl ais logs {name} -n {namespace}",
            "To have another: kubectl delete pod POD -n {namespace}",
        ),
        "NodeNotReady": (
            "See what the node says: kubectl describe node NODE",
            "To have another pod elsewhere: kubectl delete pod POD -n {namespace}",
        ),
        "FailedMount": ("See what the volume waits for: kubectl describe pods -n {namespace} -l " + _PODS,),
        "FailedAttachVolume": ("See what holds the volume: kubectl get volumeattachments",),
        "ProgressDeadlineExceeded": (
            "Read what the engine printed: kubectl ais logs {name} -n {namespace}",
            "Where it only needs longer raise spec.rollout.startSeconds",
        ),
        "PodsRefused": ("See the quotas: kubectl describe resourcequota,limitrange -n {namespace}",),
        "ChildRefused": ("Rename this AIService, or remove the object that is in its way",),
        "Unauthorized": (
            "Correct the Secret with the token, and see with its owner that the licence of the model was accepted",
            _RETRY,
        ),
        "NotFound": (_EDIT,),
        "BadSource": (_EDIT,),
        "Unreachable": (
            _REACH,
            _DOWNLOAD_LOGS,
            _RETRY,
        ),
        # In the model of an AIService the same edit asks for another cache.
        "OutOfSpace": (
            "Raise spec.storage.size where StorageClasses can expand: kubectl edit mc {cache} -n {namespace}",
        ),
        "ChecksumMismatch": (_DOWNLOAD_LOGS, "Correct the digest, or the files at the source"),
        "ProvisioningFailed": ("See which StorageClasses there are: kubectl get storageclass",),
        "ClaimRefused": ("See the quotas: kubectl describe resourcequota,limitrange -n {namespace}",),
        "ClaimNotFound": ("Make the claim that the source pvc names, in namespace {namespace}",),
        "Downloading": ("Wait; watch it with: kubectl ais logs {name} -n {namespace} --download -f",),
        "Starting": ("Wait; watch it with: kubectl ais logs {name} -n {namespace} -f",),
        "Suspended": ("To start it again set spec.suspend to false",),
        "Idle": ("To start pods raise spec.replicas: kubectl scale ais {name} -n {namespace} --replicas=1",),
    }
)
"""Lines for people; names are filled in."""


_DOWNLOAD_ROOM = (
    "Make room on a node where the service's own pods can run: downloads run there too, without a GPU. What they ask "
    "for is the chart value download.resources"
)
DOWNLOAD_ADVICE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Starting": ADVICE["Downloading"],
        "Unschedulable": ("See what each node lacks: kubectl describe pods -n {namespace} -l " + _PODS, _DOWNLOAD_ROOM),
        "ImagePullBackOff": (DOWNLOADING["ImagePullBackOff"],),
        "InvalidImageName": (DOWNLOADING["InvalidImageName"],),
        "ErrImageNeverPull": (DOWNLOADING["ErrImageNeverPull"],),
        "CrashLoopBackOff": (_DOWNLOAD_LOGS, _RETRY),
        "OOMKilled": (DOWNLOADING["OOMKilled"],),
    }
)
"""The same, where it is the download's pod that gives the reason: what it runs on is the operator's to say."""


def advice(reason: str, *, name: str, namespace: str, cache: str, download: bool) -> tuple[str, ...]:
    """Returns what to do about a reason; empty where its message says all there is.

    Args:
        reason: Of a condition or a pod.
        name: Of the AIService.
        namespace: Of the AIService.
        cache: Name of its ModelCache.
        download: Whether the model is not cached yet, so that pods are those of its download.
    """
    known = {**ADVICE, **DOWNLOAD_ADVICE} if download else ADVICE
    places = {"name": name, "namespace": namespace, "cache": cache, "instance": cache if download else name}
    return tuple(line.format(**places) for line in known.get(reason, ()))
