"""Settings of the vision image."""

from __future__ import annotations

from pydantic import Field

from aiservice_runtime import RuntimeSettings


class VisionSettings(RuntimeSettings):
    """What this image can be told beyond what every image can."""

    # Pillow itself refuses pictures of more than 178 megapixels.
    max_megapixels: float = Field(40, gt=0, le=178, description="largest picture in megapixels; larger is answered 413")
    max_new_tokens: int = Field(50, ge=1, le=500, description="longest caption in tokens")
    ocr_max_side: int = Field(
        1920,
        ge=320,
        le=8000,
        description="text is searched in the picture scaled to this many pixels on its longer side",
    )
