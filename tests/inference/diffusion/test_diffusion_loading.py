"""Weights go straight to their device. `meta`, which holds no values, stands for a GPU: nothing moves there later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines import pipeline_utils

from aiservice_diffusion.pipelines import Pipelines
from aiservice_diffusion.settings import DiffusionSettings, Offload


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that diffusers takes for one of this machine, and to which nothing moves."""
    monkeypatch.setattr(pipeline_utils, "SUPPORTED_DEVICE_MAP", ["meta", "cpu"])
    monkeypatch.setattr(DiffusionPipeline, "to", lambda pipeline, _: pipeline)
    monkeypatch.setattr(DiffusionPipeline, "enable_model_cpu_offload", lambda *_, **__: None)


def devices(folder: Path, precision: str, offload: Offload = "none") -> set[tuple[str, torch.dtype]]:
    settings = DiffusionSettings(model_dir=folder).model_copy(update={"device": "meta"})
    loaded = Pipelines(folder, settings, precision, offload)
    parameters = [parameter for module in loaded.modules for parameter in module.parameters()]
    assert len(loaded.modules) == 4
    return {(parameter.device.type, parameter.dtype) for parameter in parameters}


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16)])
def test_every_part_is_read_onto_the_device(sdxl: Path, precision: str, dtype: torch.dtype) -> None:
    found = devices(sdxl, precision)
    assert {device for device, _ in found} == {"meta"}
    assert dtype in {kind for _, kind in found}


def test_what_waits_in_the_memory_of_the_host_is_read_there(sdxl: Path) -> None:
    assert devices(sdxl, "fp32", "model") == {("cpu", torch.float32)}


def test_bitsandbytes_is_imported_for_int4_only(sdxl: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from aiservice_diffusion.engine import DiffusionEngine\n"
        "from aiservice_diffusion.settings import DiffusionSettings\n"
        "seen = []\n"
        "for precision in ('fp32', 'int4'):\n"
        "    engine = DiffusionEngine(DiffusionSettings(model_dir=Path(sys.argv[1]), precision=precision))\n"
        "    engine.import_libraries(); engine.load(); seen.append('bitsandbytes' in sys.modules)\n"
        "print(seen)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(sdxl)], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[False, True]"
    assert "kernels" not in done.stderr
