"""What a pod gets to run on, and whether its model fits there."""

from __future__ import annotations

import ast
from decimal import Decimal
from typing import Any

import pytest
import yaml

from aiservice_api.tasks import ENGINES
from aiservice_api.v1alpha1 import AIServiceSpec, ModelCacheSpec, Precision
from aiservice_operator.engines import Engine, choose_engine
from aiservice_operator.hardware import Gpu, Hardware, allocate, choose_precision, partition_memory
from aiservice_operator.memory import CPU_PRECISIONS, GPU_PRECISIONS, NEEDS
from aiservice_operator.refusals import Rejection
from aiservice_operator.settings import Profile, Settings
from support.cluster import REPOSITORY
from support.operator_objects import MODEL, SETTINGS, service

PROFILES = Settings.model_validate(
    {
        "images": {
            "diffusion": "example.test/diffusion:1",
            "speech-recognition": "example.test/speech:1",
            "vision": "example.test/vision:1",
        },
        "profiles": {
            "cpu": {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "8Gi"}}},
            "small": {"gpu": {"memoryGiB": 4}},
            "middle": {"gpu": {"memoryGiB": 12}},
            "large": {"gpu": {"memoryGiB": 24}},
            "slice": {"gpu": {"resource": "nvidia.com/mig-1g.5gb"}},
            "unknown": {"gpu": {}},
        },
    }
)
WHISPER = {"huggingFace": {"repo": "openai/whisper-large-v3", "revision": "main"}}
SDXL = {"huggingFace": {"repo": "stabilityai/stable-diffusion-xl-base-1.0", "revision": "main"}}
BLIP = {"huggingFace": {"repo": "Salesforce/blip2-opt-2.7b", "revision": "main"}}


def spec(**fields: Any) -> AIServiceSpec:
    parsed = service(spec=fields).spec
    assert parsed is not None
    return parsed


def granted(profile: str | None = None, **fields: Any) -> Hardware:
    chosen = SETTINGS.profiles[profile] if profile else Profile()
    found = allocate(spec(profile=profile, **fields), chosen)
    assert isinstance(found, Hardware), found
    return found


def refusal(profile: str | None = None, **fields: Any) -> Rejection:
    chosen = SETTINGS.profiles[profile] if profile else Profile()
    found = allocate(spec(profile=profile, **fields), chosen)
    assert isinstance(found, Rejection), found
    return found


def test_a_profile_brings_its_gpu() -> None:
    found = granted("nvidia-l4")
    assert found.gpu == Gpu("nvidia.com/gpu", 1, Decimal(24))
    assert found.limits == {"nvidia.com/gpu": "1"}
    assert found.requests == {"cpu": "4", "memory": "16Gi"}


def test_the_gpu_of_the_spec_replaces_the_profiles() -> None:
    found = granted("nvidia-l4", gpu={"resource": "nvidia.com/mig-1g.10gb", "count": 2})
    assert found.gpu == Gpu("nvidia.com/mig-1g.10gb", 2, Decimal(10))
    assert found.limits == {"nvidia.com/mig-1g.10gb": "2"}


def test_the_memory_that_the_spec_states_counts() -> None:
    assert granted(gpu={"memory": "24Gi"}).gpu == Gpu("nvidia.com/gpu", 1, Decimal(24))
    assert granted(gpu={"resource": "nvidia.com/mig-1g.10gb", "memory": "9.5Gi"}).gpu == Gpu(
        "nvidia.com/mig-1g.10gb", 1, Decimal("9.5")
    )
    assert granted(gpu={}).gpu == Gpu("nvidia.com/gpu", 1, None)


def test_resources_win_over_the_profiles_name_by_name() -> None:
    found = granted("cpu", resources={"requests": {"memory": "6Gi"}, "limits": {"ephemeral-storage": "10Gi"}})
    assert found.requests == {"cpu": "2", "memory": "6Gi"}
    assert found.limits == {"memory": "8Gi", "ephemeral-storage": "10Gi"}
    assert found.gpu is None
    assert not found.on_gpu


CLAIMS = [{"name": "dev", "resourceClaimTemplateName": "one"}]


def test_claimed_devices_beside_a_gpu_have_to_be_meant() -> None:
    """A profile's GPU with a claimed one would be two, of which a pod uses one."""
    refused = allocate(spec(profile="nvidia-l4", resourceClaims=CLAIMS), SETTINGS.profiles["nvidia-l4"])
    assert isinstance(refused, Rejection)
    assert refused.reason == "InvalidResources"
    assert "1 nvidia.com/gpu from profile nvidia-l4" in refused.message
    assert "choose a profile without a GPU" in refused.message
    both = granted("nvidia-l4", gpu={"count": 1}, resourceClaims=CLAIMS)  # the claim is for a network card
    assert both.gpu is not None
    none = granted("nvidia-l4", resources={"limits": {"nvidia.com/gpu": "0"}}, resourceClaims=CLAIMS)
    assert none.gpu is None


@pytest.mark.parametrize(
    ("resource", "memory"),
    [("nvidia.com/gpu", None), ("nvidia.com/mig-1g.5gb", Decimal(5)), ("amd.com/gpu", None)],
)
def test_gpus_among_the_resources_are_gpus(resource: str, memory: Decimal | None) -> None:
    found = granted(resources={"limits": {resource: "1"}})
    assert found.gpu == Gpu(resource, 1, memory)
    assert found.on_gpu


def test_other_devices_and_no_gpu_at_all_are_none() -> None:
    assert granted(resources={"limits": {"example.test/nic": "1"}}).gpu is None
    assert granted("nvidia-l4", resources={"limits": {"nvidia.com/gpu": "0"}}).gpu is None


def test_a_profiles_gpu_is_one_whatever_its_name() -> None:
    profile = Profile.model_validate({"gpu": {"resource": "example.test/accelerator", "memoryGiB": 32}})
    found = allocate(spec(), profile)
    assert isinstance(found, Hardware)
    assert found.gpu == Gpu("example.test/accelerator", 1, Decimal(32))


def test_a_claimed_device_is_used_as_a_gpu() -> None:
    found = granted("cpu", resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "one"}])
    assert found.on_gpu
    assert found.gpu is None


@pytest.mark.parametrize(
    ("resource", "memory"),
    [
        ("nvidia.com/mig-3g.20gb", 20),
        ("nvidia.com/mig-1g.10gb.me", 10),
        ("nvidia.com/mig-1g.5gb.shared", 5),
        ("nvidia.com/mig-2c.7g.141gb", 141),
        ("nvidia.com/gpu", None),
        ("nvidia.com/gpu.shared", None),
    ],
)
def test_memory_by_the_name_of_a_part(resource: str, memory: int | None) -> None:
    assert partition_memory(resource) == (None if memory is None else Decimal(memory))


@pytest.mark.parametrize(
    ("profile", "fields", "words"),
    [
        (None, {"gpu": {"resource": "nvidia.com/gpu.shared", "count": 2}}, "Ask for 1, or for whole GPUs"),
        (None, {"resources": {"limits": {"nvidia.com/mig-1g.5gb.shared": "3"}}}, "nvidia.com/mig-1g.5gb"),
        (
            None,
            {"gpu": {"count": 2}, "resources": {"limits": {"nvidia.com/gpu": "1"}}},
            "spec.gpu asks for 2 of nvidia.com/gpu, and spec.resources.limits for 1: leave it out of spec.resources",
        ),
        (
            "nvidia-l4",
            {"resources": {"limits": {"nvidia.com/mig-1g.5gb": "1"}}},
            "nvidia.com/gpu and nvidia.com/mig-1g.5gb: say which in spec.gpu",
        ),
        (
            "cpu",
            {"resources": {"requests": {"memory": "9Gi"}}},
            "the request for memory (9Gi) is above its limit (8Gi)",
        ),
        (
            "nvidia-t4",
            {"autoscaling": {"max": 2, "metric": "CPU"}},
            "set spec.resources.requests.cpu",
        ),
    ],
)
def test_resources_that_contradict_each_other(profile: str | None, fields: dict[str, Any], words: str) -> None:
    refused = refusal(profile, **fields)
    assert refused.reason == "InvalidResources"
    assert words in refused.message


def test_one_share_and_equal_amounts_are_fine() -> None:
    assert granted(gpu={"resource": "nvidia.com/gpu.shared"}).gpu == Gpu("nvidia.com/gpu.shared", 1, None)
    assert granted(gpu={"count": 2}, resources={"limits": {"nvidia.com/gpu": "2"}}).gpu == Gpu(
        "nvidia.com/gpu", 2, None
    )
    assert granted(resources={"limits": {"cpu": "2"}}, autoscaling={"max": 2, "metric": "CPU"}).limits == {"cpu": "2"}


def chosen(**fields: Any) -> Precision | Rejection:
    found = choose_engine(spec(**fields), PROFILES)
    return found.precision if isinstance(found, Engine) else found


@pytest.mark.parametrize(
    ("fields", "precision"),
    [
        ({"profile": "cpu"}, "fp32"),
        ({"profile": "cpu", "tasks": ["image-to-text"], "precision": "bf16"}, "bf16"),
        ({"profile": "cpu", "precision": "int8", "engine": {"image": "own:1"}}, "int8"),
        ({"profile": "large"}, "fp16"),
        ({"profile": "large", "precision": "fp32"}, "fp32"),
        ({"profile": "unknown", "precision": "fp32", "gpuMemory": "80Gi"}, "fp32"),
        ({"profile": None, "resourceClaims": [{"name": "gpu", "resourceClaimName": "one"}]}, "fp16"),
        ({"profile": "large", "engine": {"image": "own:1"}}, "fp16"),
        ({"profile": "large", "precision": "int8", "engine": {"image": "own:1"}}, "int8"),
        ({"profile": "small", "model": MODEL}, "fp16"),
        ({"profile": "small", "model": WHISPER, "gpuMemory": "4Gi"}, "fp16"),
        ({"profile": "slice", "model": WHISPER}, "fp16"),
        ({"profile": "middle", "tasks": ["image-to-text"], "model": BLIP, "precision": "bf16"}, "bf16"),
        ({"profile": "middle", "tasks": ["image-to-text"], "model": BLIP}, "fp16"),
        ({"profile": "slice", "tasks": ["image-to-text"], "model": BLIP}, "int8"),
        ({"profile": None, "gpu": {"memory": "6Gi"}, "tasks": ["text-to-image"], "model": SDXL}, "int8"),
        ({"profile": "cpu", "tasks": ["text-to-image"], "precision": "int8"}, "int8"),
        (
            {
                "profile": None,
                "gpu": {"memory": "4Gi"},
                "tasks": ["text-to-image"],
                "model": SDXL,
                "precision": "int4",
            },
            "int4",
        ),
    ],
)
def test_the_precision_that_pods_are_told(fields: dict[str, Any], precision: str) -> None:
    assert chosen(**fields) == Precision(precision)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"profile": "large", "precision": "int8"},
            (
                "the operator's engine for speech-to-text does not serve int8 on a GPU: set spec.precision to auto, "
                "fp16 or fp32, or spec.engine.image to a server that does"
            ),
        ),
        (
            {"profile": "cpu", "tasks": ["image-to-text"], "precision": "fp16"},
            (
                "the operator's engine for image-to-text does not serve fp16 on a CPU: set spec.precision to auto, "
                "fp32, bf16, int8 or int4, or spec.engine.image to a server that does"
            ),
        ),
        (
            {"profile": "cpu", "precision": "fp16"},
            (
                "the operator's engine for speech-to-text does not serve fp16 on a CPU: set spec.precision to auto or "
                "fp32, or spec.engine.image to a server that does"
            ),
        ),
    ],
)
def test_a_precision_that_the_engine_does_not_serve_there(fields: dict[str, Any], message: str) -> None:
    assert chosen(**fields) == Rejection("PrecisionNotServed", message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"profile": "small", "model": WHISPER},
            (
                "openai/whisper-large-v3 needs 5 GiB of GPU memory in fp16, and nvidia.com/gpu has 4: use a GPU "
                "with as much, such as that of profile slice (5 GiB), middle (12 GiB) or large (24 GiB)"
            ),
        ),
        (
            {"profile": "slice", "model": WHISPER, "precision": "fp32"},
            (
                "openai/whisper-large-v3 needs 10 GiB of GPU memory in fp32, and nvidia.com/mig-1g.5gb has 5: set "
                "spec.precision to fp16 (5 GiB), or use a GPU with as much, such as that of profile middle (12 GiB) "
                "or large (24 GiB)"
            ),
        ),
        (
            {"profile": "large", "gpuMemory": "30Gi"},
            (
                "the model needs 30 GiB of GPU memory (spec.gpuMemory), and nvidia.com/gpu has 24: choose a smaller "
                "model, or a GPU with more memory in spec.gpu"
            ),
        ),
        (
            {"profile": None, "gpu": {"memory": "4Gi"}, "tasks": ["image-to-text"], "model": BLIP},
            (
                "Salesforce/blip2-opt-2.7b needs 4.5 GiB of GPU memory in int8, and nvidia.com/gpu has 4: set "
                "spec.precision to int4 (2.9 GiB), or use a GPU with as much, such as that of profile slice (5 GiB), "
                "middle (12 GiB) or large (24 GiB)"
            ),
        ),
        (
            {"profile": "slice", "tasks": ["image-to-text"], "model": BLIP, "precision": "bf16"},
            (
                "Salesforce/blip2-opt-2.7b needs 7.5 GiB of GPU memory in bf16, and nvidia.com/mig-1g.5gb has 5: set "
                "spec.precision to int8 (4.5 GiB), or use a GPU with as much, such as that of profile middle (12 GiB) "
                "or large (24 GiB)"
            ),
        ),
        (
            {
                "profile": "slice",
                "tasks": ["image-to-text"],
                "model": BLIP,
                "engine": {"image": "own:1"},
            },
            (
                "Salesforce/blip2-opt-2.7b needs 7.5 GiB of GPU memory in fp16, and nvidia.com/mig-1g.5gb has 5: set "
                "spec.precision to int8 (4.5 GiB), or use a GPU with as much, such as that of profile middle (12 GiB) "
                "or large (24 GiB)"
            ),
        ),
    ],
)
def test_what_does_not_fit_and_what_would(fields: dict[str, Any], message: str) -> None:
    assert chosen(**fields) == Rejection("DoesNotFit", message)


def test_the_model_of_a_cache_is_compared_too() -> None:
    asked = spec(model=None, modelCacheRef={"name": "mine"}, profile="small")
    found = choose_engine(asked, PROFILES, ModelCacheSpec.model_validate(WHISPER))
    assert isinstance(found, Rejection)
    assert found.reason == "DoesNotFit"
    assert isinstance(choose_engine(asked, PROFILES), Engine), "a cache that is not there is not compared"


@pytest.mark.parametrize(("memory", "precision"), [("8Gi", "fp16"), ("5Gi", "int8")])
def test_auto_is_int8_only_where_nothing_else_fits_and_the_engine_can(memory: str, precision: str) -> None:
    asked = spec(profile=None, gpu={"memory": memory}, model=BLIP)
    hardware = allocate(asked, Profile())
    assert isinstance(hardware, Hardware)
    can = (Precision.FP16, Precision.FP32, Precision.INT8)
    assert choose_precision(asked, hardware, asked.model, can, {}) == Precision(precision)


def test_the_engines_serve_what_the_operator_believes() -> None:
    assert set(CPU_PRECISIONS) == set(GPU_PRECISIONS)
    for engine, believed in GPU_PRECISIONS.items():
        package = f"aiservice_{engine.replace('-', '_')}"
        source = (REPOSITORY / "inference-images" / engine / "src" / package / "engine.py").read_text()
        assigned = (node for node in ast.parse(source).body if isinstance(node, ast.Assign))
        (table,) = (node.value for node in assigned if ast.unparse(node.targets[0]) == "PRECISIONS")
        assert ast.literal_eval(table) == {"cpu": CPU_PRECISIONS[engine], "cuda": believed}


def test_every_known_need_is_less_in_smaller_formats() -> None:
    for repo, needs in NEEDS.items():
        assert repo == repo.lower()
        ordered = [
            needs[precision] for precision in (Precision.FP32, Precision.FP16, Precision.INT8) if precision in needs
        ]
        assert ordered == sorted(ordered, reverse=True)
        assert Precision.FP16 in needs, "what auto stands for can be compared"


def test_the_documentation_lists_the_same_needs() -> None:
    lines = (REPOSITORY / "docs/hardware.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    formats = next(row[1:] for row in cells if row[0] == "repository")
    documented = {
        row[0]: {Precision(name): Decimal(gib) for name, gib in zip(formats, row[1:], strict=True) if gib}
        for row in cells
        if row[0] in NEEDS
    }
    assert documented == NEEDS


def test_the_examples_fit_the_profiles_that_the_chart_brings() -> None:
    values = yaml.safe_load((REPOSITORY / "charts/aiservice-operator/values.yaml").read_text())
    images = dict.fromkeys(ENGINES.values(), "example.test/engine:1")
    settings = Settings.model_validate({"images": images, "profiles": values["profiles"]})
    refused = []
    for path in sorted((REPOSITORY / "examples").rglob("*.yaml")):
        objects = [item for item in yaml.safe_load_all(path.read_text()) if item]
        caches = {
            item["metadata"]["name"]: ModelCacheSpec.model_validate(item["spec"])
            for item in objects
            if item["kind"] == "ModelCache"
        }
        for item in (item for item in objects if item["kind"] == "AIService"):
            asked = AIServiceSpec.model_validate(item["spec"])
            reference = asked.model_cache_ref
            found = choose_engine(asked, settings, caches.get(reference.name) if reference else None)
            # A profile that is not there is one that the example tells the reader to make.
            if isinstance(found, Rejection) and found.reason != "UnknownProfile":
                refused.append((path.name, found.message))
    assert refused == []
