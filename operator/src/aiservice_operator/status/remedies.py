"""What to do about what went wrong, by its reason: the parts that fail tell what it is, and know of no spec.

One clause each; `kubectl ais why` adds the commands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from aiservice_api.v1alpha1 import AIServiceSpec
from aiservice_operator.failures import Failure
from aiservice_operator.names import listed
from aiservice_operator.observed import Meta

REFUSED = "Mend that, unless it passes: it is tried again by itself"
"""About what the API server does not take."""

_ON_THE_NODE = "Bring the image onto the node, or let the chart value workloads.imagePullPolicy have it pulled"

SERVING: Mapping[str, str] = MappingProxyType(
    {
        "ImagePullBackOff": (
            "Correct the image in spec.engine or spec.pod.sidecars, or name a Secret that opens its registry in "
            "spec.pod.imagePullSecrets"
        ),
        "InvalidImageName": "Correct the image in spec.engine or spec.pod.sidecars",
        "ErrImageNeverPull": _ON_THE_NODE,
        "CreateContainerConfigError": (
            "Create what is missing, or correct env in spec.engine or spec.pod.sidecars: the pod then starts by itself"
        ),
        "CreateContainerError": "Correct command and args in spec.engine or spec.pod.sidecars",
        "RunContainerError": "Correct command and args in spec.engine or spec.pod.sidecars",
        "CrashLoopBackOff": "Mend in the spec or the model what it complains of: it is started again by itself",
        "OOMKilled": (
            "Raise spec.resources.limits.memory (without a limit: requests.memory), or that of the sidecar in "
            "spec.pod.sidecars"
        ),
        "Evicted": (
            "Another pod takes its place; set spec.resources.requests to what it uses, so that it gets a node with room"
        ),
        "Unschedulable": (
            "Make room or provide what is missing, or ask for something else (spec.profile, spec.resources, spec.pod)"
        ),
        "FailedMount": "Create or mend the volume: the pod then starts by itself",
        "FailedAttachVolume": "Free or mend the volume: the pod then starts by itself",
        "PodsRefused": (
            "Provide what is missing, have the policy changed, or ask for something else (spec.resources, spec.pod)"
        ),
        "NotReady": "It serves again when it answers; where it hangs, read its log and delete the pod to have another",
        "NodeNotReady": "Mend the node, or delete the pod to have another elsewhere",
    }
)
"""Of the pods of an AIService."""

DOWNLOADING: Mapping[str, str] = MappingProxyType(
    {
        "ImagePullBackOff": (
            "Correct the chart value download.image, or name a Secret that opens its registry in "
            "workloads.imagePullSecrets"
        ),
        "InvalidImageName": "Correct the chart value download.image",
        "ErrImageNeverPull": _ON_THE_NODE,
        "CreateContainerConfigError": (
            "Create the Secret that the source names, with the keys that it needs: then it goes on by itself"
        ),
        "OOMKilled": "Raise the chart value download.resources.limits.memory: then it is tried again",
        "Unschedulable": "Make room on a node where all who use the cache can run: then it goes on by itself",
        "FailedMount": "Create or mend the volume: then it goes on by itself",
        "FailedAttachVolume": "Free or mend the volume: then it goes on by itself",
        "PodsRefused": (
            "`kubectl describe resourcequota,limitrange` shows what is allowed: raise it, have the policy changed, or "
            "change the chart value download.resources; then it goes on by itself"
        ),
        "JobRefused": "Raise the quota or mend the policy, or change the chart value download.resources",
    }
)
"""Of the Jobs of a ModelCache, besides when they are tried again."""


def advised(message: str, remedy: str) -> str:
    """Adds what to do to what is wrong."""
    return f"{message.rstrip('. ')}. {remedy}"


def chosen_nodes(selector: Mapping[str, str], users: Iterable[AIServiceSpec | None]) -> str:
    """Returns which nodes pods need, and where that is from: the scheduler only says that none is one.

    Args:
        selector: Labels of those nodes; empty: any will do.
        users: Specs of the AIServices that the pods are for.
    """
    if not selector:
        return ""
    known = [spec for spec in users if spec is not None]
    by_hand = {label for spec in known if spec.pod is not None for label in spec.pod.node_selector}
    profiles = dict.fromkeys(spec.profile for spec in known if spec.profile is not None)
    origin = f" (profile {listed(profiles)})" if profiles and selector.keys() - by_hand else ""
    return f"It needs a node with {', '.join(f'{label}={value}' for label, value in selector.items())}{origin}"


def resize(cache: Meta, size: str) -> str:
    """Returns how a cache gets a volume of another size.

    In the AIService that states the model the same edit would ask for another cache, and download it anew.
    """
    if not cache.inline_cache:
        return f"set storage.size to {size}"
    return f"set spec.storage.size of ModelCache {cache.name} to {size} (there: in the AIService it is another cache)"


def sentence(words: str) -> str:
    """Returns words as the beginning of a sentence."""
    return words[:1].upper() + words[1:]


def of_pod(failure: Failure) -> str:
    """Returns what to do about the failure of a serving pod."""
    name = failure.object.removeprefix("Pod/")
    return SERVING.get(failure.reason, f"Its Events tell more: `kubectl describe pod {name}`")
