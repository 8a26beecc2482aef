"""Decoding of one image to uint8 RGB, whatever a photo folder or a record holds."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from efquantface.files import write_bytes

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
_MAX_PIXELS = 100_000_000
_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "F")

Image.MAX_IMAGE_PIXELS = _MAX_PIXELS


class UnreadableImage(Exception):
    """The file is not a whole image; the text says what is wrong with it."""


def read_image(image: Path | bytes) -> npt.NDArray[np.uint8]:
    """Read an image as uint8 RGB (H,W,3), turned upright by its EXIF orientation.

    Grey, palette, RGBA (over black) and CMYK become RGB; 16-bit values are scaled to 8 bits.

    Args:
        image: a file, or the bytes of one.

    Raises:
        UnreadableImage: not an image, truncated, or larger than 100 million pixels.
    """
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            if upright.mode in _WIDE_MODES:
                wide = np.asarray(upright, np.float64)
                scale = 257.0 if wide.max() > 255 else 1.0
                grey = np.clip(np.rint(wide / scale), 0, 255).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            if "A" in upright.getbands() or "transparency" in upright.info:
                rgba = upright.convert("RGBA")
                black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
                upright = Image.alpha_composite(black, rgba)
            return np.array(upright.convert("RGB"), np.uint8)
    except UnidentifiedImageError:
        raise UnreadableImage("not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableImage(str(error)) from None


def write_image(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write uint8 RGB (H,W,3); JPEG at quality 95 without chroma subsampling, or PNG."""
    encoded = io.BytesIO()
    if path.suffix == ".png":
        Image.fromarray(image).save(encoded, "PNG")
    else:
        Image.fromarray(image).save(encoded, "JPEG", quality=95, subsampling=0)
    write_bytes(path, encoded.getvalue())
