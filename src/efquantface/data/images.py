"""Decodes one image of any common format to uint8 RGB."""

from __future__ import annotations

import io
import warnings
from contextlib import nullcontext
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from efquantface.downloads import stand_in
from efquantface.files import write_bytes

# endings of photos; those that Pillow does not decode here are reported as unreadable
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
    | {".ppm", ".pgm", ".jp2", ".avif", ".heic", ".heif"}
)
_MAX_PIXELS = 100_000_000
_LARGE = 10_000_000  # pixels; larger images are decoded one at a time
_ONE = Lock()
# no format that Pillow decodes by another program (EPS), and none that no photo has
_DECODED = ["JPEG", "MPO", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF"]
_WHOLE_MODES = ("I", "I;16", "I;16B", "I;16L")
_MOST, _ROWS = 65535, 256

Image.MAX_IMAGE_PIXELS = _MAX_PIXELS
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such images are refused here
Image.init()
_FORMATS = tuple(name for name in _DECODED if name in Image.OPEN)


class UnreadableImage(Exception):
    """The file is not a whole image; the text says what is wrong with it."""


def read_image(image: Path | bytes) -> npt.NDArray[np.uint8]:
    """Read an image as uint8 RGB (H,W,3), turned upright by its EXIF orientation.

    Grey, palette, RGBA (over black) and CMYK become RGB. 16-bit values and floats of 0..1, 0..255 or
    0..65535 are scaled to 8 bits. A file of several images gives the first.

    Args:
        image: a file, or the bytes of one.

    Raises:
        UnreadableImage: it is not an image, is truncated, has more than 100 million pixels, or has
            values of an unknown range.
    """
    stream = io.BytesIO(image) if isinstance(image, bytes) else image
    try:
        with Image.open(stream, formats=_FORMATS) as opened:
            pixels = _pixels(opened)
            with _ONE if pixels > _LARGE else nullcontext():
                opened.load()
                _pixels(opened)  # some formats give their size only after decoding
                return _as_rgb(opened)
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(_not_an_image(image)) from None
    except MemoryError:
        raise UnreadableImage("does not fit into memory") from None
    except Exception as error:  # every decoder raises its own kinds
        raise UnreadableImage(str(error) or type(error).__name__) from None


def _pixels(image: Image.Image) -> int:
    """How many pixels an image has.

    Raises:
        UnreadableImage: it has more than are decoded.
    """
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise UnreadableImage(
            f"has {width}x{height} pixels; at most {_MAX_PIXELS // 1_000_000} million are decoded"
        )
    return width * height


def _as_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F" or upright.mode in _WHOLE_MODES:
        return np.repeat(_grey(upright)[:, :, None], 3, axis=2)
    if "A" in upright.getbands() or "transparency" in upright.info:
        rgba = upright.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        upright = Image.alpha_composite(black, rgba)
    return np.array(upright.convert("RGB"), np.uint8)


def _grey(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Values of more than 8 bits as uint8 (H,W)."""
    wide = np.asarray(image)
    low, high = float(wide.min()), float(wide.max())
    if not (low >= 0 and high <= _MOST):  # nan is neither
        raise UnreadableImage(
            f"holds values of {low:g} to {high:g}, without a known black and white; write it as "
            "8 bits, 0 to 255"
        )
    factor = 255.0 if image.mode == "F" and high <= 1 else 1.0
    grey = np.empty(wide.shape, np.uint8)
    for start in range(0, len(wide), _ROWS):  # by rows: float64 takes eight times the memory
        rows = wide[start : start + _ROWS].astype(np.float64)
        scaled = rows * factor if high <= 255 else rows / 257
        grey[start : start + _ROWS] = np.clip(np.rint(scaled), 0, 255)
    return grey


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
