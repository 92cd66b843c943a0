"""Uploads to pictures, through Pillow: known formats only, and no pixel is decoded before the size is checked.

Only engines for pictures import this module: Pillow is theirs, not the runtime's.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image, ImageOps, UnidentifiedImageError

from aiservice_runtime import uploads
from aiservice_runtime.errors import InvalidRequestError, PayloadTooLargeError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# Modes of Pillow that convert("RGB") shows as a viewer would. Not among them: 32-bit integers and floats.
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}


def decode(upload: bytes, *, max_pixels: float) -> Image.Image:
    """Returns the upright RGB picture in an upload: the first frame, turned as EXIF says, on white where transparent.

    Raises InvalidRequestError when it is no picture, something else too, or damaged; PayloadTooLargeError when it has
    too many pixels.
    """
    return _decoded(upload, max_pixels, _rgb)


def decode_mask(upload: bytes, *, max_pixels: float) -> Image.Image:
    """Returns the mask in an upload in shades of grey: white where a picture may change.

    That is what is transparent in a mask, as OpenAI has it, whatever else it shows; in one without, what is white.

    Raises InvalidRequestError or PayloadTooLargeError as decode() does.
    """
    return _decoded(upload, max_pixels, _mask)


def _decoded(upload: bytes, max_pixels: float, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    if not upload:
        raise InvalidRequestError("The image is empty.")
    try:
        with Image.open(io.BytesIO(upload), formats=FORMATS) as picture:
            if picture.width * picture.height > max_pixels:
                raise _too_large(max_pixels)
            uploads.check_picture(upload)
            picture.load()
            return convert(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError:
        raise _too_large(max_pixels) from None
    except UnidentifiedImageError:
        raise InvalidRequestError(f"The upload is no picture: send {', '.join(FORMATS)}.") from None
    # Pillow's decoders raise what they please on damaged data.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, MemoryError):
        raise InvalidRequestError("The picture is damaged or cut short.") from None


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        picture = picture.point(lambda value: value / 256).convert("L")  # convert() alone would clip at 255
    if picture.mode not in _MODES:
        raise InvalidRequestError(
            f"Pictures with pixels of the kind {picture.mode} are not supported; send 8 bits a colour."
        )
    if picture.has_transparency_data:
        # On black, which convert("RGB") alone would give, dark letters vanish.
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")


def _mask(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        opaque = picture.convert("RGBA").getchannel("A")
        if opaque.getextrema() != (255, 255):
            return ImageOps.invert(opaque)
    return _rgb(picture).convert("L")


def _too_large(max_pixels: float) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"The picture has more than {max_pixels / 1e6:g} megapixels, the limit of this service."
    )
