"""An AIService that uses every field there is for its children, where one excludes another in turn."""

from __future__ import annotations

from aiservice_operator.kinds import Json

_REQUIREMENT: Json = {"key": "zone", "operator": "In", "values": ["a", "b"]}
_NODE_TERM: Json = {
    "matchExpressions": [_REQUIREMENT],
    "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}],
}
_SELECTOR: Json = {"matchLabels": {"app": "other"}, "matchExpressions": [_REQUIREMENT]}
_POD_TERM: Json = {
    "labelSelector": _SELECTOR,
    "namespaceSelector": {"matchLabels": {"team": "b"}},
    "namespaces": ["team-c"],
    "topologyKey": "topology.kubernetes.io/zone",
}
_PODS: Json = {
    "requiredDuringSchedulingIgnoredDuringExecution": [_POD_TERM],
    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "podAffinityTerm": _POD_TERM}],
}
_ENVIRONMENT: list[Json] = [
    {"name": "PLAIN", "value": "1"},
    {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    {"name": "FROM_CONFIG", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
]

FULL: Json = {
    "tasks": ["text-to-image", "image-to-image"],
    "model": {"huggingFace": {"repo": "stabilityai/stable-diffusion-xl-base-1.0", "revision": "main"}},
    "precision": "fp16",
    "profile": "nvidia-l4",
    "gpu": {"resource": "nvidia.com/mig-3g.20gb", "count": 1, "memory": "20Gi"},
    "gpuMemory": "12Gi",
    "resourceClaims": [
        {"name": "nic", "resourceClaimName": "shared-nic"},
        {"name": "fpga", "resourceClaimTemplateName": "fpga"},
    ],
    "resources": {"requests": {"cpu": "8", "memory": "24Gi"}, "limits": {"memory": "32Gi"}},
    "engine": {
        "image": "example.test/diffusion:7",
        "command": ["python", "-m", "diffusion"],
        "args": ["--compile"],
        "env": _ENVIRONMENT,
        "readyPath": "/v2/ready",
        "healthPath": "/v2/live",
    },
    "autoscaling": {"min": 2, "max": 6, "metric": "Concurrency", "targetConcurrency": 3},
    "rollout": {"surge": "Always", "startSeconds": 601, "drainSeconds": 120},
    "disruption": {"minAvailable": "50%"},
    "network": {
        "restrict": True,
        "allowFrom": [
            {"podSelector": _SELECTOR},
            {"namespaceSelector": {"matchLabels": {"team": "b"}}, "podSelector": {}},
        ],
    },
    "pod": {
        "labels": {"team": "a", "example.test/cost": "7"},
        "annotations": {"example.test/note": "hello"},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [
            {"key": "spot", "operator": "Equal", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 60}
        ],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_NODE_TERM]},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 5, "preference": _NODE_TERM}],
            },
            "podAffinity": _PODS,
            "podAntiAffinity": _PODS,
        },
        "topologySpreadConstraints": [
            {"maxSkew": 2, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "priorityClassName": "urgent",
        "runtimeClassName": "sandbox",
        "imagePullSecrets": [{"name": "own-registry"}],
        "volumes": [
            {"name": "settings", "configMap": {"name": "c", "items": [{"key": "k", "path": "a/k"}]}},
            {"name": "keys", "secret": {"secretName": "s", "items": [{"key": "k", "path": "k"}]}},
            {"name": "work", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
            {"name": "lora", "persistentVolumeClaim": {"claimName": "lora", "readOnly": True}},
        ],
        "volumeMounts": [
            {"name": "settings", "mountPath": "/etc/engine", "readOnly": True},
            {"name": "lora", "mountPath": "/lora", "subPath": "v1"},
        ],
        "sidecars": [
            {
                "name": "exporter",
                "image": "example.test/exporter:2",
                "command": ["/exporter"],
                "args": ["--all"],
                "env": _ENVIRONMENT,
                "ports": [{"name": "exporter", "containerPort": 9100}],
                "resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "64Mi"}},
                "volumeMounts": [
                    {"name": "model", "mountPath": "/weights", "subPath": "unet"},
                    {"name": "work", "mountPath": "/work"},
                ],
            }
        ],
    },
}
"""Spec of an AIService; its profile has a GPU too, which `gpu` replaces."""


def unowned(body: Json) -> Json:
    """A child as it is built, but of nobody: what is owned by an object that is not there is collected."""
    return {**body, "metadata": {name: value for name, value in body["metadata"].items() if name != "ownerReferences"}}
