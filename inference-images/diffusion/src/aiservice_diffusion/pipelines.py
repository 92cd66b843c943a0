"""The diffusers pipelines of one model folder: read, made to fit the device, and run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import torch
import transformers
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)

from aiservice_diffusion.bodies import Able, Picture
from aiservice_diffusion.settings import DiffusionSettings, Offload
from aiservice_runtime import Check, FatalError
from aiservice_runtime.quantized import QUANTIZED, quantize

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# What quantized weights are computed in, and what the parts are kept in that are not quantized: fast on the device.
_AROUND = {"cpu": torch.float32, "cuda": torch.float16}

# Lightning models are trained for Euler's steps at the end of each interval (their model cards).
_SCHEDULERS: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "euler": (EulerDiscreteScheduler, {}),
    "euler-ancestral": (EulerAncestralDiscreteScheduler, {}),
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "ddim": (DDIMScheduler, {}),
    "unipc": (UniPCMultistepScheduler, {}),
    "lcm": (LCMScheduler, {}),
    "lightning": (EulerDiscreteScheduler, {"timestep_spacing": "trailing"}),
}

Pixels = npt.NDArray[np.float32]
"""One image: height, width, 3 colours from 0 to 1."""


class Pipelines:
    """One copy of the weights, behind a pipeline for each way to start. Not for several threads at once."""

    def __init__(self, folder: Path, settings: DiffusionSettings, precision: str, offload: Offload = "none") -> None:
        """Loads from the folder only. Raises FatalError when it holds no pipeline that can be loaded."""
        for logging in (diffusers.utils.logging, transformers.utils.logging):
            logging.disable_progress_bar()
        self._settings = settings
        dtype = _AROUND[settings.device] if precision in QUANTIZED else DTYPES[precision]
        # Straight to the device, but for what is quantized before it goes there, and what waits in the host's memory.
        straight = precision not in QUANTIZED and offload == "none"
        self._from_text = _read(folder, dtype, device=settings.device if straight else None)
        self._from_text.set_progress_bar_config(disable=True)
        if precision in QUANTIZED:
            vae = self._from_text.vae
            quantize((module for module in self.modules if module is not vae), precision)
        if settings.scheduler != "model":
            kind, options = _SCHEDULERS[settings.scheduler]
            self._from_text.scheduler = kind.from_config(self._from_text.scheduler.config, **options)
        self.loras = _load_loras(self._from_text, folder / "loras")
        self._place(offload)
        self._from_image = self._sharing(AutoPipelineForImage2Image)
        self._from_mask = self._sharing(AutoPipelineForInpainting)

    @property
    def modules(self) -> list[torch.nn.Module]:
        """The parts that hold weights."""
        return [part for part in self._from_text.components.values() if isinstance(part, torch.nn.Module)]

    @property
    def able(self) -> Able:
        """What requests may ask for."""
        scheduler = self._from_text.scheduler
        # These two pick their steps among those that the model was distilled from.
        distilled = isinstance(scheduler, LCMScheduler | TCDScheduler)
        return Able(self.loras, int(scheduler.config.original_inference_steps) if distilled else None)

    def compile(self) -> None:
        """Has the denoiser compiled on its next run, for pictures of every size: the first one is a small one."""
        part = "transformer" if hasattr(self._from_text, "transformer") else "unet"
        getattr(self._from_text, part).compile(dynamic=True)

    @torch.inference_mode()
    def make(self, batch: Sequence[Picture], check: Check) -> list[Pixels]:
        """Makes the images of one batch; all of them have equal `together`."""
        first = batch[0]
        self._use_loras(first.loras)
        self._tile(first)
        arguments: dict[str, Any] = {
            "prompt": [picture.prompt for picture in batch],
            "negative_prompt": [picture.negative_prompt for picture in batch],
            "num_inference_steps": first.steps,
            "guidance_scale": first.guidance,
            # One for each image, on the CPU: the noise is the same alone, in a batch, and on every device.
            "generator": [torch.Generator().manual_seed(picture.seed) for picture in batch],
            "output_type": "np",
        }
        pipeline = self._from_text
        starts = [picture.start for picture in batch if picture.start is not None]
        if starts:
            pipeline = self._from_image if starts[0].mask is None else self._from_mask
            arguments |= {"image": [start.image for start in starts], "strength": starts[0].strength}
        if starts and starts[0].mask is not None:
            arguments["mask_image"] = [start.mask for start in starts]
        if not starts or starts[0].mask is not None:
            arguments |= {"width": first.width, "height": first.height}

        def after_step(_: Any, __: int, ___: Any, state: dict[str, Any]) -> dict[str, Any]:
            check()
            return state

        images: Pixels = pipeline(**arguments, callback_on_step_end=after_step).images
        if not np.isfinite(images).all():
            raise ArithmeticError("the model gave no numbers (NaN): its VAE cannot be run in this precision")
        return list(images)

    def _place(self, offload: Offload) -> None:
        pipeline, device = self._from_text, self._settings.device
        if offload == "model":
            pipeline.enable_model_cpu_offload(device=device)
        elif offload == "sequential":
            pipeline.enable_sequential_cpu_offload(device=device)
        else:
            pipeline.to(device)
        pipeline.vae.enable_slicing()  # a batch is decoded one by one: the same pixels, and no peak of memory

    def _sharing(self, kind: Any) -> Any:
        """Returns a pipeline on the same weights, with a scheduler of its own: schedulers hold the state of a run."""
        pipeline = kind.from_pipe(self._from_text)
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _tile(self, picture: Picture) -> None:
        wanted = self._settings.vae_tiling
        large = picture.width * picture.height > 1024 * 1024
        if wanted == "on" or (wanted == "auto" and large):
            self._from_text.vae.enable_tiling()
        else:
            self._from_text.vae.disable_tiling()

    def _use_loras(self, loras: tuple[tuple[str, float], ...]) -> None:
        if not self.loras:
            return
        if loras:
            self._from_text.enable_lora()
            self._from_text.set_adapters([name for name, _ in loras], [weight for _, weight in loras])
        else:
            self._from_text.disable_lora()


def _read(folder: Path, dtype: torch.dtype, *, device: str | None) -> Any:
    """Returns the pipeline on a device, each tensor out of the mapped files; None: in the memory of the host."""
    if not (folder / "model_index.json").is_file():
        raise FatalError(f"No model in {folder}: expected a diffusers pipeline (model_index.json and its folders).")
    # A repository may hold the fp16 files only, the full ones only, or both.
    variants = [None, "fp16"] if dtype is torch.float32 else ["fp16", None]
    errors: list[Exception] = []
    for variant in variants:
        try:
            return AutoPipelineForText2Image.from_pretrained(  # type: ignore[no-untyped-call]  # typed in parts
                folder,
                dtype=dtype,
                variant=variant,
                use_safetensors=True,
                local_files_only=True,
                device_map=device,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            errors.append(error)
    reason = (str(errors[0]).splitlines() or [""])[0][:300]
    raise FatalError(f"The diffusers pipeline in {folder} cannot be loaded: {reason}") from errors[0]


def _load_loras(pipeline: Any, folder: Path) -> list[str]:
    """Loads every adapter of a folder, and returns their names."""
    names = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # peft warns of a second adapter: here that is meant
                pipeline.load_lora_weights(
                    str(folder), weight_name=path.name, adapter_name=path.stem, local_files_only=True
                )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = (str(error).splitlines() or [""])[0][:300]
            raise FatalError(f"The LoRA {path.name} does not fit the model: {reason}") from error
        names.append(path.stem)
    return names
