"""Settings of the diffusion image."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aiservice_runtime import RuntimeSettings

Offload = Literal["none", "model", "sequential"]


class DiffusionSettings(RuntimeSettings):
    """What this image can be told beyond what every image can."""

    scheduler: Literal["model", "euler", "euler-ancestral", "dpm++", "ddim", "unipc", "lcm", "lightning"] = Field(
        "model",
        description="sampler; model: the one that the model folder names; lcm and lightning are for few-step models",
    )
    default_steps: int = Field(30, ge=1, le=200, description="steps of a request that asks for none")
    default_guidance: float = Field(
        5.0, ge=0, le=50, description="guidance scale of a request that asks for none; few-step models take 0 to 2"
    )
    max_steps: int = Field(100, ge=1, le=1000, description="most steps of a request; more is answered 400")
    max_images: int = Field(4, ge=1, le=64, description="most images of a request; more is answered 400")
    max_megapixels: float = Field(
        2.2, gt=0, le=64, description="largest image to make, in megapixels; larger is answered 400"
    )
    max_upload_megapixels: float = Field(
        40, gt=0, le=178, description="largest image to start from, in megapixels; larger is answered 413"
    )
    vae_tiling: Literal["auto", "on", "off"] = Field(
        "auto", description="decode in tiles, which takes less memory: on, off, or auto: above one megapixel"
    )
    offload: Literal["auto", "none", "model", "sequential"] = Field(
        "none",
        description="keep parts in the memory of the host until needed: none, model (slower), sequential (slow), "
        "or auto: model where all of it does not fit into the free memory of the GPU",
    )
    safety_filter: bool = Field(
        False, description="check every image with the filter in safety_checker/ of the model folder"
    )
    compile: bool = Field(
        False,
        description="compile the denoiser while warming up, for images of any size: minutes at the start, faster after",
    )
