"""Bad AIServices: what they serve, on what, how they are kept running, and how clients reach them."""

from __future__ import annotations

from typing import Any

from support.bad_manifests.cases import Case, bad, service_with
from support.manifests import ABSENT, Manifest, ai_service, http_file, model_cache


def limits(**amounts: Any) -> Manifest:
    return service_with(resources={"limits": amounts})


def requests(**amounts: Any) -> Manifest:
    return service_with(resources={"requests": amounts})


def autoscaling(**fields: Any) -> Manifest:
    return service_with(autoscaling={"max": 3, **fields})


_TASKS = (
    bad("no-spec", ai_service(("spec", ABSENT)), "spec: Required value"),
    bad("tasks-missing", ai_service(("spec.tasks", ABSENT)), "spec.tasks: Required value"),
    bad(
        "task-unknown",
        service_with(tasks=["text-to-video"]),
        'Unsupported value: "text-to-video": supported values: "text-to-image", "text-to-speech"',
    ),
    bad("task-twice", service_with(tasks=["text-to-image", "text-to-image"]), "Duplicate value"),
    bad(
        "tasks-of-two-engines",
        service_with(tasks=["speech-to-text", "image-to-text"]),
        "speech-to-text and image-to-text cannot share one service, only text-to-image and image-to-image can: "
        "make one AIService for each other task",
    ),
    bad(
        "three-tasks",
        service_with(tasks=["text-to-image", "image-to-image", "image-to-text"]),
        "spec.tasks: Too many: 3: must have at most 2 items",
    ),
)

_MODEL = (
    bad(
        "no-model",
        ai_service(("spec.model", ABSENT)),
        "set exactly one of model (the operator makes and shares the cache) and modelCacheRef (a ModelCache that you "
        "made); set here: none",
    ),
    bad("two-models", service_with(modelCacheRef={"name": "mine"}), "set here: model modelCacheRef"),
    bad(
        "cache-name-bad",
        ai_service(("spec.model", ABSENT), ("spec.modelCacheRef", {"name": "My Cache"})),
        "spec.modelCacheRef.name",
        "write the name of an object: lower-case letters, digits, dashes and dots, with a letter or digit at both ends",
    ),
    bad(
        "two-sources-in-a-service",
        ai_service(("spec.model.http", {"files": [http_file()]})),
        "spec.model: Invalid value:",
        "set here: huggingFace http",
    ),
)

_HARDWARE = (
    bad(
        "profile-upper-case",
        service_with(profile="NVIDIA-L4"),
        'spec.profile: Invalid value: "NVIDIA-L4": write lower-case letters, digits and dashes, with a letter or digit '
        "at both ends",
    ),
    bad(
        "no-hardware",
        service_with(profile=ABSENT),
        "say what hardware to use: set profile to one of the operator's resource profiles (for example nvidia-l4 or "
        "cpu), or set gpu, or resourceClaims, or requests or limits under resources",
    ),
    bad(
        "hardware-of-nothing",
        service_with(profile=ABSENT, resources={"limits": {}, "requests": {}}, resourceClaims=[]),
        "say what hardware to use",
    ),
    bad("precision-unknown", service_with(precision="fp8"), 'Unsupported value: "fp8"'),
    bad(
        "gpu-without-domain",
        service_with(gpu={"resource": "gpu"}),
        'spec.gpu.resource: Invalid value: "gpu": write the resource with its domain, such as nvidia.com/gpu, '
        "nvidia.com/gpu.shared or nvidia.com/mig-1g.10gb",
    ),
    bad("no-gpus", service_with(gpu={"count": 0}), "spec.gpu.count in body should be greater than or equal to 1"),
    *(
        bad(
            f"memory-{case}",
            manifest,
            "write the memory with its unit, for example 512Mi or 24Gi; a number alone would be bytes",
        )
        for case, manifest in [
            ("of-a-gpu-without-unit", service_with(gpu={"memory": 24})),
            ("of-a-gpu-in-words", service_with(gpu={"memory": "24 GB"})),
            ("of-the-model-without-unit", service_with(gpuMemory="12")),
        ]
    ),
    bad(
        "claim-of-nothing",
        service_with(resourceClaims=[{"name": "gpu"}]),
        "set exactly one of resourceClaimName and resourceClaimTemplateName; set here: none",
    ),
    bad(
        "claim-of-two",
        service_with(resourceClaims=[{"name": "gpu", "resourceClaimName": "a", "resourceClaimTemplateName": "b"}]),
        "set here: resourceClaimName resourceClaimTemplateName",
    ),
    bad(
        "claim-twice",
        service_with(resourceClaims=[{"name": "gpu", "resourceClaimName": name} for name in "ab"]),
        'Duplicate value: {"name":"gpu"}',
    ),
)

_RESOURCES = (
    bad(
        "resource-unknown",
        limits(gpu=1),
        "gpu: no such resource; use cpu, memory, ephemeral-storage or a device with its domain, such as nvidia.com/gpu",
    ),
    bad(
        "amount-no-quantity",
        requests(memory="8 GB"),
        'spec.resources.requests[memory]: Invalid value: "8 GB"',
        "write the amount as a Kubernetes quantity, for example cpu: 500m, memory: 8Gi, nvidia.com/gpu: 1",
    ),
    bad(
        "amount-negative",
        requests(cpu=-1),
        "spec.resources.requests[cpu]: Invalid value: -1: the amount must not be negative",
    ),
    bad("amount-no-text-or-number", limits(cpu=True), "must be of type integer,string"),
    bad(
        "half-a-gpu",
        limits(**{"nvidia.com/gpu": "500m"}),
        "nvidia.com/gpu: devices are not divided; write a whole number",
    ),
    bad(
        "request-above-limit",
        service_with(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "2000Mi"}}),
        "memory: the request is above the limit; raise the limit or lower the request",
    ),
    bad(
        "gpu-in-requests-only",
        requests(**{"nvidia.com/gpu": 1}),
        "nvidia.com/gpu: devices are asked for under limits; state the same amount there, or leave requests out",
    ),
    bad(
        "gpu-request-unlike-limit",
        service_with(resources={"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": "2"}}),
        "nvidia.com/gpu: devices are asked for under limits",
    ),
)

_OPERATION = (
    bad("replicas-too-many", service_with(replicas=1001), "should be less than or equal to 1000"),
    bad("replicas-in-words", service_with(replicas="2"), "must be of type integer"),
    bad(
        "replicas-and-autoscaling",
        service_with(replicas=0, autoscaling={"max": 2}),
        "replicas and autoscaling both say how many pods there are: remove replicas to scale automatically, or "
        "autoscaling to fix the number",
    ),
    bad("autoscaling-without-end", service_with(autoscaling={"min": 2}), "spec.autoscaling.max: Required value"),
    bad("autoscaling-to-none", autoscaling(min=0), "spec.autoscaling.min in body should be greater than or equal to 1"),
    bad(
        "autoscaling-upside-down",
        autoscaling(min=4),
        "autoscaling.max is below autoscaling.min: raise max or lower min",
    ),
    bad(
        "cpu-target-of-concurrency",
        autoscaling(targetCpuUtilization=50),
        "targetCpuUtilization is for metric CPU: remove it, or set metric to CPU",
    ),
    bad(
        "concurrency-target-of-cpu",
        autoscaling(metric="CPU", targetConcurrency=2),
        "targetConcurrency is for metric Concurrency: remove it, or set metric to Concurrency",
    ),
    bad("metric-unknown", autoscaling(metric="GPU"), 'supported values: "Concurrency", "CPU"'),
    bad("surge-unknown", service_with(rollout={"surge": "Maybe"}), 'supported values: "Auto", "Always", "Never"'),
    bad("start-at-once", service_with(rollout={"startSeconds": 5}), "should be greater than or equal to 30"),
    bad("drain-for-days", service_with(rollout={"drainSeconds": 7200}), "should be less than or equal to 3600"),
    bad(
        "disruption-of-nothing",
        service_with(disruption={}),
        "set exactly one of maxUnavailable and minAvailable; set here: none",
    ),
    bad(
        "disruption-of-two",
        service_with(disruption={"maxUnavailable": 1, "minAvailable": 1}),
        "set here: maxUnavailable minAvailable",
    ),
    *(
        bad(
            f"disruption-{case}",
            service_with(disruption={"maxUnavailable": value}),
            "write a number of pods such as 1, or a share of at most 100%, such as 25%",
        )
        for case, value in [("in-words", "one"), ("negative", -1), ("above-all", "101%")]
    ),
    bad(
        "allowed-but-open",
        service_with(network={"restrict": False, "allowFrom": [{"podSelector": {}}]}),
        "without restrict everybody may connect: remove network.allowFrom, or set network.restrict to true",
    ),
    bad(
        "nobody-allowed",
        service_with(network={"allowFrom": [{}]}),
        "say who may connect: set podSelector, namespaceSelector or both",
    ),
)

_GATEWAY = (
    bad(
        "default-but-not-exposed",
        service_with(gateway={"default": True, "expose": False}),
        "a service that is not exposed cannot be the default: set gateway.default to false, or gateway.expose to true",
    ),
    *(
        bad(
            f"nothing-waits-{field}",
            service_with(gateway={field: 10}),
            "nothing waits without gateway.maxConcurrency: set it, or remove gateway.maxQueue and gateway.queueSeconds",
        )
        for field in ("maxQueue", "queueSeconds")
    ),
    bad("gateway-name-twice", service_with(gateway={"names": ["whisper-1", "whisper-1"]}), "Duplicate value"),
    bad(
        "gateway-name-bad",
        service_with(gateway={"names": ["a name"]}),
        "write a name of letters, digits, dots, underscores, dashes and slashes that starts with a letter or digit, "
        "for example whisper-1",
    ),
)

_NAMES = (
    *(
        bad(
            f"service-name-{case}",
            ai_service(name=name),
            "the Service of the pods gets this object's name, so metadata.name must be at most 63 lower-case letters, "
            "digits and dashes, and start with a letter",
        )
        for case, name in [("too-long", "a" * 64), ("with-dot", "whisper.v3"), ("with-digit-first", "3d")]
    ),
    bad(
        "cache-name-too-long",
        model_cache(name="a" * 53),
        "metadata.name must be at most 52 characters: the download Job and its pods are named after it",
    ),
    bad("field-misspelt", service_with(replica=1), 'unknown field "spec.replica"'),
    bad("field-of-another-place", ai_service(("spec.gateway.replicas", 1)), 'unknown field "spec.gateway.replicas"'),
)

SERVICES: tuple[Case, ...] = (*_TASKS, *_MODEL, *_HARDWARE, *_RESOURCES, *_OPERATION, *_GATEWAY, *_NAMES)
