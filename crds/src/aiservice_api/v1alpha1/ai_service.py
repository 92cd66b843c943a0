"""`AIService`: a model served over HTTP for one or more tasks."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from aiservice_api.tasks import Task
from aiservice_api.v1alpha1.common import (
    API_VERSION,
    ApiModel,
    Conditions,
    DnsLabel,
    DnsSubdomain,
    LastFailure,
    ObjectMeta,
    ServedName,
    TenantName,
    exactly_one,
    rule,
    validations,
)
from aiservice_api.v1alpha1.container import DeviceClaim, EngineSpec, GpuSpec, Memory, Resources
from aiservice_api.v1alpha1.model_cache import ModelCacheSpec
from aiservice_api.v1alpha1.operation import Autoscaling, Disruption, Network, Rollout
from aiservice_api.v1alpha1.pod import PodOverrides


class Precision(StrEnum):
    """Number format of the weights while they serve."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    INT4 = "int4"


class ModelCacheRef(ApiModel):
    """A ModelCache of the same namespace."""

    name: Annotated[DnsSubdomain, Field(description="Name of the ModelCache, in the namespace of this object.")]


class GatewaySpec(ApiModel):
    """How the gateway offers this service."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "self.expose || !self.default",
                "a service that is not exposed cannot be the default: set gateway.default to false, or "
                "gateway.expose to true",
            ),
            rule(
                "has(self.maxConcurrency) || !(has(self.maxQueue) || has(self.queueSeconds))",
                "nothing waits without gateway.maxConcurrency: set it, or remove gateway.maxQueue and "
                "gateway.queueSeconds",
            ),
        )
    )

    expose: Annotated[bool, Field(description="Whether the gateway routes requests to this service.")] = True
    names: Annotated[
        list[ServedName],
        Field(
            description="More names by which clients may ask for this service, besides its own, for example "
            "whisper-1 or openai/whisper-large-v3.",
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = []
    default: Annotated[
        bool,
        Field(
            description="Whether requests that name no service go here. Of two defaults for one task the older wins, "
            "and the other says so in its GatewayDefault condition; if both are in one namespace and state a weight, "
            "they share the requests."
        ),
    ] = False
    tenants: Annotated[
        list[TenantName] | None,
        Field(
            description="The tenants that may use this service, as their tokens name them; for the others it is not "
            "there. Unset: all, as far as their AITenants let them.",
            max_length=256,
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None
    weight: Annotated[
        int | None,
        Field(
            description="This service's part of the requests for a name that several AIServices of one namespace have "
            "(by their own name, by names, or as defaults of a task): with 90 and 10, one request in ten goes to the "
            "second. 0: none of them. A service that states no weight shares with nobody, and requests for "
            "NAMESPACE/NAME are not shared.",
            ge=0,
            le=1000,
        ),
    ] = None
    timeout_seconds: Annotated[
        int | None,
        Field(
            description="Longest time for one request to this service, upload, waiting and answer included. Left out: "
            "the gateway's setting (300).",
            ge=1,
            le=86400,
        ),
    ] = None
    max_concurrency: Annotated[
        int | None,
        Field(
            description="Most requests that each gateway process sends to this service at once; more wait. With "
            "several gateways the service may get that from each. Left out: any number, as the engines' own queues "
            "allow.",
            ge=1,
            le=100_000,
        ),
    ] = None
    max_queue: Annotated[
        int | None,
        Field(
            description="Most requests that may wait in each gateway process; more are answered 503 with Retry-After. "
            "Tenants take turns. Left out: 100.",
            ge=0,
            le=100_000,
        ),
    ] = None
    queue_seconds: Annotated[
        int | None,
        Field(
            description="Longest time for a request to wait, after which it is answered 503 with Retry-After. Left "
            "out: 30.",
            ge=1,
            le=3600,
        ),
    ] = None


class AIServiceSpec(ApiModel):
    """What is served, from which model, on which hardware, and how clients reach it."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            exactly_one(
                "model",
                "modelCacheRef",
                of="model (the operator makes and shares the cache) and modelCacheRef (a ModelCache that you made)",
            ),
            rule(
                "has(self.profile) || has(self.gpu) || self.?resourceClaims.orValue([]).size() > 0 "
                "|| self.?resources.?requests.orValue({}).size() > 0 "
                "|| self.?resources.?limits.orValue({}).size() > 0",
                "say what hardware to use: set profile to one of the operator's resource profiles (for example "
                "nvidia-l4 or cpu), or set gpu, or resourceClaims, or requests or limits under resources",
            ),
            rule(
                "!(has(self.replicas) && has(self.autoscaling))",
                "replicas and autoscaling both say how many pods there are: remove replicas to scale automatically, or "
                "autoscaling to fix the number",
            ),
        )
    )

    tasks: Annotated[
        list[Task],
        Field(
            description="What the service does. One engine serves all of them from one copy of the weights: "
            "text-to-image and image-to-image may stand together, every other task stands alone.",
            min_length=1,
            max_length=2,
            json_schema_extra={
                "x-kubernetes-list-type": "set",
                **validations(
                    rule(
                        "self.size() == 1 || self.all(t, t in ['text-to-image', 'image-to-image'])",
                        "only text-to-image and image-to-image can share one service: make one AIService for each "
                        "other task",
                        message_expression=(
                            "self.join(' and ') + ' cannot share one service, only text-to-image and image-to-image "
                            "can: make one AIService for each other task'"
                        ),
                    )
                ),
            },
        ),
    ]
    model: Annotated[
        ModelCacheSpec | None,
        Field(
            description="The model, stated here. Services of one namespace that state the same model share one "
            "download: every field counts, storage and Secrets too. Where those are to differ, use modelCacheRef."
        ),
    ] = None
    model_cache_ref: Annotated[ModelCacheRef | None, Field(description="Use a ModelCache that you made.")] = None
    precision: Annotated[
        Precision,
        Field(
            description="Number format of the weights. auto: fp32 on a CPU; on a GPU fp16, or int8 where only that "
            "fits and the engine can; int4 is for those who ask for it. status.precision says which. One that the "
            "operator's engine does not serve there is not accepted; an image of your own is told whatever is stated."
        ),
    ] = Precision.AUTO
    profile: Annotated[
        DnsLabel | None,
        Field(
            description="Resource profile of the operator: GPU, CPU, memory, node selector and tolerations under one "
            "name, for example cpu, nvidia-t4, nvidia-l4 or nvidia-a100."
        ),
    ] = None
    gpu: Annotated[GpuSpec | None, Field(description="The GPUs of each pod, in place of the profile's.")] = None
    gpu_memory: Annotated[
        Memory | None,
        Field(
            description="GPU memory that the model needs, for example 8Gi; a service whose GPU has less is not "
            "accepted. Unset: known for the models that the engines are made for, else not compared."
        ),
    ] = None
    resource_claims: Annotated[
        list[DeviceClaim],
        Field(
            description="Devices from dynamic resource allocation, for clusters that serve resource.k8s.io.",
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    resources: Annotated[
        Resources | None,
        Field(
            description="Compute resources of the engine's container. They are added to the profile's, and replace "
            "those of the same name."
        ),
    ] = None
    engine: Annotated[EngineSpec, Field(description="The server that runs in the pods.")] = EngineSpec()
    replicas: Annotated[
        int | None,
        Field(description="Number of pods. Unset: 1. 0 keeps the model cached and runs nothing.", ge=0, le=1000),
    ] = None
    autoscaling: Annotated[
        Autoscaling | None, Field(description="Scale the number of pods automatically, in place of replicas.")
    ] = None
    suspend: Annotated[
        bool,
        Field(
            description="Whether everything is stopped for now: no pod runs, whatever replicas and autoscaling say, "
            "and the model stays cached."
        ),
    ] = False
    rollout: Annotated[Rollout, Field(description="How pods are replaced when the spec changes.")] = Rollout()
    disruption: Annotated[
        Disruption | None,
        Field(
            description="How many pods drains of nodes may stop at once. Unset: one; all of them where a "
            "ReadWriteOnce volume keeps them on one node, which could not be drained otherwise."
        ),
    ] = None
    network: Annotated[Network, Field(description="Who may reach the pods.")] = Network()
    pod: Annotated[PodOverrides | None, Field(description="Changes to the pods, from an allow-list.")] = None
    gateway: Annotated[GatewaySpec, Field(description="How the gateway offers this service.")] = GatewaySpec()


class Timings(ApiModel):
    """How long the last start took, in seconds. Absent parts have not finished, or are not known."""

    ready_seconds: Annotated[
        float | None, Field(description="From creation to being Ready for the first time; later starts keep it.", ge=0)
    ] = None
    cache_seconds: Annotated[float | None, Field(description="From creation to the model being cached.", ge=0)] = None
    schedule_seconds: Annotated[float | None, Field(description="From pod creation to a node being found.", ge=0)] = (
        None
    )
    load_seconds: Annotated[
        float | None,
        Field(description="From the container's start to its readiness: load and warm-up.", ge=0),
    ] = None


class RolloutStatus(ApiModel):
    """What was decided when the present rollout began."""

    surge: Annotated[bool, Field(description="Whether new pods start before old ones stop.")]
    reason: Annotated[str, Field(description="Why, in a sentence.", max_length=1024)]


class AIServiceStatus(ApiModel):
    """Observed state of an AIService."""

    observed_generation: Annotated[int, Field(description="The generation that this status describes.", ge=0)] = 0
    replicas: Annotated[int, Field(description="Pods that exist.", ge=0)] = 0
    ready_replicas: Annotated[int, Field(description="Pods that serve.", ge=0)] = 0
    selector: Annotated[str, Field(description="Label selector of the pods, for autoscalers.", max_length=1024)] = ""
    url: Annotated[
        str | None, Field(description="Where the first task is served inside the cluster.", max_length=512)
    ] = None
    endpoints: Annotated[
        dict[str, Annotated[str, Field(max_length=512)]],
        Field(description="Base URL inside the cluster, by task.", max_length=8),
    ] = {}
    model: Annotated[str, Field(description="The model's source in one line, for people.", max_length=1024)] = ""
    model_cache: Annotated[
        str | None, Field(description="Name of the ModelCache that this service uses.", max_length=253)
    ] = None
    precision: Annotated[
        Precision | None, Field(description="Number format of the weights that pods are told to use.")
    ] = None
    rollout: Annotated[RolloutStatus | None, Field(description="How the present rollout replaces pods.")] = None
    timings: Annotated[Timings | None, Field(description="How long the last start took.")] = None
    last_failure: Annotated[LastFailure | None, Field(description="The last thing that went wrong.")] = None
    conditions: Conditions = []


class AIService(ApiModel):
    """A model served over HTTP for one or more tasks: cached once, scheduled on the right hardware, observed."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63",
                "the Service of the pods gets this object's name, so metadata.name must be at most 63 lower-case "
                "letters, digits and dashes, and start with a letter",
            )
        )
    )

    api_version: Literal["aiservice.dev/v1alpha1"] = API_VERSION
    kind: Literal["AIService"] = "AIService"
    metadata: ObjectMeta
    spec: AIServiceSpec
    status: AIServiceStatus = AIServiceStatus()
