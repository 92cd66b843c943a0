"""What the field `style` stands for: words around the prompt, words against it, and how closely to follow them.

The set is ours. It is documented in docs/inference.md, and asked by name so that clients need not know prompts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """A named way of drawing."""

    before: str = ""
    after: str = ""
    negative: str = ""
    guidance: float = 1.0
    """Times the service's own guidance, where the request gives none: less looks natural, more is strict in form."""


STYLES = {
    "none": Style(),
    "realistic": Style(
        after="realistic photograph, natural light, sharp focus, fine detail",
        negative="drawing, painting, illustration, cartoon, render, deformed",
        guidance=0.8,
    ),
    "photographic": Style(
        after="35mm photograph, film grain, depth of field, professional lighting",
        negative="drawing, painting, illustration, cartoon, render, deformed",
        guidance=0.8,
    ),
    "cinematic": Style(
        after="cinematic still, dramatic light, shallow depth of field, wide shot",
        negative="drawing, cartoon, flat light, text, watermark",
        guidance=0.9,
    ),
    "anime": Style(
        after="anime artwork, clean lines, vivid colours, studio animation",
        negative="photograph, realistic, deformed, low contrast",
        guidance=1.2,
    ),
    "digital-art": Style(
        after="digital art, concept art, matte painting, highly detailed", negative="photograph, low detail, deformed"
    ),
    "illustration": Style(
        after="editorial illustration, bold shapes, limited palette", negative="photograph, noise, text, watermark"
    ),
    "line-art": Style(
        before="line drawing of",
        after="ink on white paper, clean lines, no shading",
        negative="colour, photograph, blur",
        guidance=1.4,
    ),
    "watercolor": Style(
        before="watercolour painting of", after="soft washes, paper texture", negative="photograph, hard edges, render"
    ),
    "oil-painting": Style(
        before="oil painting of",
        after="visible brush strokes, canvas texture",
        negative="photograph, render, flat colour",
    ),
    "pixel-art": Style(
        before="pixel art of",
        after="16-bit, limited palette, crisp pixels",
        negative="blur, photograph",
        guidance=1.4,
    ),
    "3d-render": Style(
        after="3D render, global illumination, physically based materials", negative="drawing, flat, noise, deformed"
    ),
    "isometric": Style(
        before="isometric view of",
        after="clean geometry, soft shadows, simple background",
        negative="perspective, blur",
        guidance=1.2,
    ),
    "fantasy": Style(
        after="fantasy art, epic, intricate detail, magical atmosphere", negative="photograph, modern, text, watermark"
    ),
    "minimalist": Style(
        after="minimalist, simple shapes, plain background",
        negative="clutter, busy background, text, watermark",
        guidance=1.2,
    ),
}


def styled(prompt: str, negative: str, name: str) -> tuple[str, str]:
    """Returns the prompt and the negative prompt with the words of a style of STYLES."""
    style = STYLES[name]
    # The client's own words come first where nothing must precede them: text encoders cut off the end.
    head = f"{style.before} {prompt}" if style.before else prompt
    return _joined(head, style.after), _joined(negative, style.negative)


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)
