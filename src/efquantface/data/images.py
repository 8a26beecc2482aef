"""Decoding of one image to uint8 RGB, whatever a photo folder or a record holds."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from efquantface.downloads import stand_in
from efquantface.files import write_bytes

# what photos are called; those that Pillow does not decode here are counted as left out
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
    | {".ppm", ".pgm", ".jp2", ".avif", ".heic", ".heif"}
)
_MAX_PIXELS = 100_000_000
_WHOLE_MODES = ("I", "I;16", "I;16B", "I;16L")
_MOST = 65535

Image.MAX_IMAGE_PIXELS = _MAX_PIXELS


class UnreadableImage(Exception):
    """The file is not a whole image; the text says what is wrong with it."""


def read_image(image: Path | bytes) -> npt.NDArray[np.uint8]:
    """Read an image as uint8 RGB (H,W,3), turned upright by its EXIF orientation.

    Grey, palette, RGBA (over black) and CMYK become RGB; 16-bit values and floats of 0..1, 0..255 or
    0..65535 are scaled to 8 bits. Of several pictures in a file the first is taken.

    Args:
        image: a file, or the bytes of one.

    Raises:
        UnreadableImage: not an image, truncated, larger than 100 million pixels, or of values whose
            range is not known.
    """
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            if upright.mode == "F" or upright.mode in _WHOLE_MODES:
                return np.repeat(_grey(upright)[:, :, None], 3, axis=2)
            if "A" in upright.getbands() or "transparency" in upright.info:
                rgba = upright.convert("RGBA")
                black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
                upright = Image.alpha_composite(black, rgba)
            return np.array(upright.convert("RGB"), np.uint8)
    except UnidentifiedImageError:
        raise UnreadableImage(_not_an_image(image)) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableImage(str(error)) from None


def _grey(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Values of more than 8 bits as uint8 (H,W)."""
    wide = np.asarray(image, np.float64)
    low, high = float(wide.min()), float(wide.max())
    if not (low >= 0 and high <= _MOST):  # nan is neither
        raise UnreadableImage(
            f"holds values of {low:g} to {high:g}, of which nobody knows black and white; write it "
            "as 8 bits, 0 to 255"
        )
    factor = 255.0 if image.mode == "F" and high <= 1 else 1.0
    scaled = wide * factor if high <= 255 else wide / 257
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _not_an_image(image: Path | bytes) -> str:
    if isinstance(image, Path) and image.suffix.lower() in (".heic", ".heif", ".avif"):
        return f"{image.suffix.lower()} is not decoded here; convert it to .jpg or .png"
    return (stand_in(image) if isinstance(image, Path) else None) or "not an image"


def write_image(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write uint8 RGB (H,W,3); JPEG at quality 95 without chroma subsampling, or PNG."""
    encoded = io.BytesIO()
    if path.suffix == ".png":
        Image.fromarray(image).save(encoded, "PNG")
    else:
        Image.fromarray(image).save(encoded, "JPEG", quality=95, subsampling=0)
    write_bytes(path, encoded.getvalue())
