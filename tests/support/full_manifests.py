"""Good manifests which, taken together, state every field that the kinds have, defaults included."""

from __future__ import annotations

from typing import Any

from support.manifests import ABSENT, Manifest, ai_service, ai_tenant, http_file, model_cache

_STORAGE = {"size": "30Gi", "storageClassName": "fast", "accessMode": "ReadWriteMany"}

MODELS: dict[str, dict[str, Any]] = {
    "hub": {
        "huggingFace": {
            "repo": "stabilityai/stable-diffusion-xl-base-1.0",
            "revision": "refs/pr/1",
            "include": ["*.json", "*.fp16.safetensors"],
            "exclude": ["*.onnx"],
            "tokenSecretRef": {"name": "hub", "key": "read"},
            "endpoint": "https://hub.example.com/mirror",
        },
        "storage": _STORAGE,
        "retention": {"policy": "DeleteWhenUnused", "after": "7d"},
        "verify": "Always",
    },
    "bucket": {
        "s3": {
            "bucket": "models.example",
            "prefix": "diffusion/sdxl",
            "endpoint": "http://minio.storage.svc:9000",
            "region": "eu-central-1",
            "include": ["*.safetensors"],
            "exclude": ["*.bin"],
            "pathStyle": True,
            "credentialsSecretRef": {"name": "minio"},
        },
        "storage": {**_STORAGE, "accessMode": "ReadWriteOnce"},
        "retention": {"policy": "Retain"},
        "verify": "OnChange",
    },
    "files": {
        "http": {
            "files": [
                {**http_file(), "unpack": False},
                {**http_file(path="ocr/det", url="http://files.example.com:8080/det.tar.gz"), "unpack": True},
                {**http_file(path="ocr/rec", url="http://[2001:db8::1]:8080/rec.onnx"), "unpack": False},
                {**http_file(path="ocr/cls", url="https://files.example.com./cls.onnx"), "unpack": False},
            ]
        },
        "storage": _STORAGE,
        "verify": "OnChange",
    },
    "image": {
        "oci": {
            "image": "registry.example.com:5000/models/sdxl:1.0@sha256:" + "0" * 64,
            "path": "models/sdxl",
            "pullSecretRef": {"name": "registry"},
        },
        "storage": _STORAGE,
        "verify": "OnChange",
    },
    "claim": {"pvc": {"claimName": "models", "path": "diffusion/sdxl"}, "verify": "OnChange"},
}
"""A model from each source, as a ModelCache's spec and an AIService's `spec.model` state it."""

_ENV = [
    {"name": "LOG_LEVEL", "value": "debug"},
    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    {"name": "REGION", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k.txt"}}},
]

_SELECTOR = {
    "matchLabels": {"example.com/team": "speech"},
    "matchExpressions": [
        {"key": "tier", "operator": "In", "values": ["a", "b"]},
        {"key": "old", "operator": "DoesNotExist"},
    ],
}

_NODES = {
    "matchExpressions": [{"key": "example.com/cores", "operator": "Gt", "values": ["16"]}],
    "matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node-1.example.com"]}],
}

_PODS = {
    "labelSelector": _SELECTOR,
    "namespaceSelector": _SELECTOR,
    "namespaces": ["other"],
    "topologyKey": "topology.kubernetes.io/zone",
}

_NEAR = {
    "requiredDuringSchedulingIgnoredDuringExecution": [_PODS],
    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": _PODS}],
}

POD: dict[str, Any] = {
    "labels": {"example.com/team": "speech"},
    "annotations": {"example.com/scrape": "yes, please"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [
        {"key": "gpu", "operator": "Equal", "value": "shared", "effect": "NoExecute", "tolerationSeconds": 60},
        {"operator": "Exists"},
    ],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_NODES]},
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": _NODES}],
        },
        "podAffinity": _NEAR,
        "podAntiAffinity": _NEAR,
    },
    "topologySpreadConstraints": [
        {"maxSkew": 2, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "priorityClassName": "serving",
    "runtimeClassName": "nvidia",
    "imagePullSecrets": [{"name": "registry"}],
    "volumes": [
        {"name": "settings", "configMap": {"name": "c", "items": [{"key": "a.yaml", "path": "conf/a.yaml"}]}},
        {"name": "keys", "secret": {"secretName": "s", "items": [{"key": "tls.key", "path": "tls.key"}]}},
        {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "voices", "persistentVolumeClaim": {"claimName": "voices", "readOnly": True}},
    ],
    "volumeMounts": [{"name": "voices", "mountPath": "/voices", "subPath": "en/gb", "readOnly": True}],
    "sidecars": [
        {
            "name": "proxy",
            "image": "registry.example.com/proxy:1",
            "command": ["/proxy"],
            "args": ["--verbose"],
            "env": _ENV,
            "ports": [{"name": "metrics", "containerPort": 9100}],
            "resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "64Mi"}},
            "volumeMounts": [
                {"name": "scratch", "mountPath": "/scratch", "subPath": "proxy", "readOnly": False},
                {"name": "model", "mountPath": "/models", "readOnly": True},
            ],
        }
    ],
}

_ENGINE = {
    "image": "registry.example.com/diffusion@sha256:" + "0" * 64,
    "command": ["/serve"],
    "args": ["--max-megapixels=4"],
    "env": _ENV,
    "readyPath": "/v1/status",
    "healthPath": "/livez",
}


def _service(name: str, *changes: tuple[str, Any]) -> Manifest:
    """A service with all that the variants have in common."""
    return ai_service(
        ("spec.tasks", ["text-to-image", "image-to-image"]),
        ("spec.precision", "fp16"),
        ("spec.gpu", {"resource": "nvidia.com/mig-3g.20gb", "count": 2, "memory": "20Gi"}),
        ("spec.gpuMemory", "12Gi"),
        (
            "spec.resources",
            {"requests": {"cpu": 2, "memory": "8Gi"}, "limits": {"memory": "16Gi", "example.com/fast-nic": "1"}},
        ),
        ("spec.engine", _ENGINE),
        ("spec.suspend", False),
        ("spec.rollout", {"surge": "Never", "startSeconds": 600, "drainSeconds": 120}),
        (
            "spec.network",
            {"restrict": True, "allowFrom": [{"namespaceSelector": _SELECTOR, "podSelector": _SELECTOR}]},
        ),
        (
            "spec.gateway",
            {
                "expose": True,
                "default": True,
                "names": ["sdxl", "stabilityai/SDXL"],
                "tenants": ["acme", "Käse & Co."],
                "weight": 90,
                "timeoutSeconds": 120,
                "maxConcurrency": 8,
                "maxQueue": 50,
                "queueSeconds": 20,
            },
        ),
        *changes,
        name=name,
    )


FULL_SERVICES = (
    _service(
        "hub",
        ("spec.model", MODELS["hub"]),
        ("spec.replicas", 2),
        ("spec.disruption", {"maxUnavailable": "25%"}),
        ("spec.pod", POD),
    ),
    _service(
        "bucket",
        ("spec.model", MODELS["bucket"]),
        ("spec.autoscaling", {"min": 2, "max": 5, "metric": "Concurrency", "targetConcurrency": 3}),
        ("spec.disruption", {"minAvailable": 1}),
    ),
    _service(
        "files",
        ("spec.model", MODELS["files"]),
        ("spec.autoscaling", {"min": 1, "max": 1, "metric": "CPU", "targetCpuUtilization": 70}),
    ),
    _service(
        "image",
        ("spec.model", MODELS["image"]),
        (
            "spec.resourceClaims",
            [
                {"name": "shared", "resourceClaimName": "one-for-all"},
                {"name": "own", "resourceClaimTemplateName": "one-each"},
            ],
        ),
    ),
    _service("claim", ("spec.model", MODELS["claim"])),
    _service("reference", ("spec.model", ABSENT), ("spec.modelCacheRef", {"name": "mine"})),
)

FULL_CACHES = tuple(model_cache(("spec", spec), name=name) for name, spec in MODELS.items())

FULL_TENANTS = (
    ai_tenant(
        ("spec.tenant", "Käse & Co."),
        ("spec.suspend", False),
        ("spec.services", ["whisper", "team-a/sdxl"]),
        (
            "spec.limits",
            [
                {"measure": "requests", "maximum": 1000000, "window": "1d", "task": "text-to-image"},
                {"measure": "requests", "maximum": 20, "window": "60s", "task": "text-to-image"},
                {"measure": "units", "maximum": 7200.5, "window": "30m"},
                {"measure": "concurrency", "maximum": 4},
                {"measure": "spend", "maximum": 99.95},
            ],
        ),
        (
            "spec.apiKeys",
            [
                {
                    "name": "ci",
                    "sha256": "0123456789abcdef" * 4,
                    "user": "pipeline@example.com",
                    "admin": False,
                    "expires": "2027-01-01T00:00:00Z",
                },
                {"name": "reports", "sha256": "f" * 64, "admin": True},
            ],
        ),
        name="cheese",
    ),
)

FULL = (*FULL_SERVICES, *FULL_CACHES, *FULL_TENANTS)
