"""Which number format is loaded: what was asked for, or what fits."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from aiservice_runtime import RuntimeSettings
from aiservice_runtime.errors import FatalError
from aiservice_runtime.precision import GIB, Model, candidates, choose, size
from aiservice_runtime.torch_engine import TorchEngine
from aiservice_runtime.weight_files import Parameters, by_size, in_safetensors

SUPPORTED = {"cpu": ("fp32", "bf16", "int8", "int4"), "cuda": ("fp16", "bf16", "fp32", "int8", "int4")}
AUTO = ("fp16", "bf16", "int8")


def settings(device: str, precision: str) -> RuntimeSettings:
    return RuntimeSettings.model_validate({"device": device, "precision": precision})


@pytest.mark.parametrize(
    ("device", "asked", "expected"),
    [
        ("cpu", "auto", ("fp32",)),
        ("cuda", "auto", AUTO),
        ("cpu", "bf16", ("bf16",)),
        ("cuda", "fp32", ("fp32",)),
        ("cuda", "int8", ("int8",)),
        ("cuda", "int4", ("int4",)),
    ],
)
def test_candidates(device: str, asked: str, expected: tuple[str, ...]) -> None:
    assert candidates(settings(device, asked), SUPPORTED) == expected


@pytest.mark.parametrize(("device", "asked"), [("cpu", "fp16"), ("cuda", "int8")])
def test_impossible_precision(device: str, asked: str) -> None:
    supported = {"cpu": ("fp32", "bf16"), "cuda": ("fp16", "fp32")}
    with pytest.raises(
        FatalError, match=f"Precision {asked} is not possible here on {device}; set precision to auto or"
    ):
        candidates(settings(device, asked), supported)


# Like SDXL: 6.5 GiB in fp16, 3.7 in int8; its largest part 4.8 and 2.7.
PARTS = Parameters(matrices=2_950_000_000, others=520_000_000)
LARGEST = Parameters(matrices=2_230_000_000, others=340_000_000)
WHOLE = Model(PARTS, GIB)
IN_PARTS = Model(PARTS, GIB, LARGEST)
TRAINED_IN_BF16 = Model(Parameters(2_950_000_000, 520_000_000, bf16=True), GIB)


@pytest.mark.parametrize(
    ("model", "free", "options", "expected"),
    [
        (WHOLE, 24, {}, ("fp16", False)),
        (WHOLE, 24, {"bf16": True}, ("fp16", False)),
        (TRAINED_IN_BF16, 24, {"bf16": True}, ("bf16", False)),
        (TRAINED_IN_BF16, 24, {"bf16": False}, ("fp16", False)),
        (WHOLE, 7.5, {}, ("fp16", False)),
        (WHOLE, 7.4, {}, ("int8", False)),
        (TRAINED_IN_BF16, 7.4, {"bf16": True}, ("int8", False)),
        (WHOLE, 4.8, {}, ("int8", False)),
        (IN_PARTS, 7.4, {"offload": True}, ("int8", False)),
        (IN_PARTS, 4.6, {"offload": True}, ("int8", True)),
        (Model(PARTS, GIB, Parameters(500_000_000)), 3, {"offload": True}, ("fp16", True)),
        (None, 0.1, {}, ("fp16", False)),
        (WHOLE, None, {}, ("fp16", False)),
    ],
)
def test_auto_is_the_best_that_fits(
    model: Model | None, free: float | None, options: dict[str, bool], expected: tuple[str, bool]
) -> None:
    choice = choose(AUTO, model, None if free is None else int(free * GIB), **options)
    assert (choice.precision, choice.offload) == expected
    if model is not None and free is not None:
        assert choice.needed is not None
        assert choice.needed <= free * GIB


@pytest.mark.parametrize(
    ("wanted", "model", "options", "sentence"),
    [
        (AUTO, WHOLE, {}, r"The model needs 4\.7 GiB .* in int8 \(1 GiB of it to work in\), and 2 GiB are free: use"),
        (AUTO, IN_PARTS, {}, r"smaller model, or set offload to auto\."),
        (AUTO, IN_PARTS, {"offload": True}, r"The largest part of the model needs 3\.7 GiB .* a smaller model\."),
        (("fp16",), WHOLE, {}, r"The model needs 7\.5 GiB of the device's memory in fp16"),
    ],
)
def test_what_fits_in_no_way_is_told_with_its_numbers(
    wanted: tuple[str, ...], model: Model, options: dict[str, bool], sentence: str
) -> None:
    with pytest.raises(FatalError, match=sentence):
        choose(wanted, model, 2 * GIB, **options)


def test_size() -> None:
    parameters = Parameters(matrices=100, others=10)
    assert {name: size(parameters, name) for name in ("fp32", "fp16", "bf16", "int8", "int4")} == {
        "fp32": 440,
        "fp16": 220,
        "bf16": 220,
        "int8": 120,
        "int4": 74,
    }


class Loaded(TorchEngine):
    """An engine that stops before it needs torch."""

    tasks = ()

    def modules(self) -> Iterable[Any]:
        return ()

    def load(self) -> None:
        self.choice = self.settle_precision(IN_PARTS)

    def warm_up(self) -> None:
        """Nothing to warm up."""

    def release(self) -> None:
        """Nothing to let go of."""


def loaded(device: str, precision: str, free: float) -> Loaded:
    engine = Loaded(settings(device, precision), SUPPORTED, read_free=lambda: int(free * GIB))
    engine.load()
    return engine


@pytest.mark.parametrize(
    ("device", "precision", "free", "expected"),
    [
        ("cuda", "auto", 16, "fp16"),
        ("cuda", "auto", 6, "int8"),
        ("cuda", "fp32", 1, "fp32"),  # asked for: it is tried
        ("cpu", "auto", 1, "fp32"),
    ],
)
def test_the_choice_is_logged_once_with_its_numbers(
    device: str, precision: str, free: float, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert loaded(device, precision, free).choice.precision == expected
    [record] = caplog.records
    fields = record.__dict__["fields"]
    assert (record.message, fields["precision"], fields["device"]) == ("precision chosen", expected, device)
    assert fields["parameters"] == PARTS.count
    assert fields["free_bytes"] == (free * GIB if device == "cuda" else None)


def test_a_full_gpu_ends_the_start() -> None:
    with pytest.raises(FatalError, match=r"and 0\.5 GiB are free"):
        loaded("cuda", "auto", 0.5)


def safetensors(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> Path:
    header: dict[str, Any] = {name: {"dtype": kind, "shape": shape} for name, (kind, shape) in tensors.items()}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


def test_parameters_are_read_from_headers_alone(tmp_path: Path) -> None:
    one = safetensors(
        tmp_path / "1.safetensors",
        {
            "block.to_q.weight": ("BF16", [8, 4]),
            "block.to_q.bias": ("BF16", [8]),
            "conv.weight": ("BF16", [2, 2, 3, 3]),
            "embed_tokens.weight": ("F16", [10, 2]),
        },
    )
    two = safetensors(tmp_path / "2.safetensors", {"norm.weight": ("F32", [4])})
    assert in_safetensors([one]) == Parameters(32, 8 + 36 + 20, bf16=True)
    assert in_safetensors([one, two]) == Parameters(32, 8 + 36 + 20 + 4, bf16=True)
    assert in_safetensors([one], quantized=False) == Parameters(0, 96, bf16=True)
    assert in_safetensors([]) == Parameters()


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 16, struct.pack("<Q", 4) + b"no j"])
def test_what_is_no_safetensors_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"safetensors|JSON|Expecting"):
        in_safetensors([path])


def test_other_files_are_taken_as_two_bytes_a_number(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(bytes(1000))
    assert by_size([tmp_path / "model.bin"]) == Parameters(matrices=500)
