"""A check of finished images, with the filter that the Stable Diffusion pipelines use.

Layout: safety_checker/ holds config.json, weights and preprocessor_config.json, as
CompVis/stable-diffusion-safety-checker is published.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPImageProcessorPil

from aiservice_runtime import FatalError


class SafetyFilter:
    """Tells which images must not be shown. Not for several threads at once."""

    def __init__(self, folder: Path, *, device: str) -> None:
        """Loads from the folder only. Raises FatalError when the filter is not there."""
        try:
            self._processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
            model: Any = StableDiffusionSafetyChecker.from_pretrained(folder, local_files_only=True, device_map=device)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = (str(error).splitlines() or [""])[0][:300]
            raise FatalError(f"The safety filter in {folder} cannot be loaded: {reason}") from error
        self.module = model.eval().to(device)

    @torch.inference_mode()
    def refused(self, images: Sequence[npt.NDArray[np.float32]]) -> list[bool]:
        """Returns for each image (height, width, 3 colours from 0 to 1) whether it must not be shown."""
        pixels = self._processor(
            [(image * 255).round().astype("uint8") for image in images], return_tensors="pt"
        ).pixel_values.to(self.module.device)
        _, found = self.module(clip_input=pixels, images=[np.zeros((1, 1, 3), np.float32) for _ in images])
        return [bool(refused) for refused in found]
