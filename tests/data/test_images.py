"""Every kind of image becomes RGB; damaged ones are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from efquantface.data.images import UnreadableImage, read_image, write_image

RAMP = np.arange(32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)


def test_every_kind_of_image_becomes_rgb(tmp_path: Path) -> None:
    grey = Image.fromarray(RAMP[..., 0])
    forms = {
        "grey.png": grey,
        "rgba.png": Image.fromarray(RAMP).convert("RGBA"),
        "cmyk.jpg": Image.fromarray(RAMP).convert("CMYK"),
        "palette.png": Image.fromarray(RAMP).convert("P"),
        "grey alpha.png": grey.convert("LA"),
        "bits16.png": Image.fromarray(RAMP[..., 0].astype(np.uint16) * 257),
        "Ünicode & space.png": Image.fromarray(RAMP),
        "pixel.png": Image.fromarray(RAMP[:1, :1]),
    }
    for name, image in forms.items():
        image.save(tmp_path / name)
        read = read_image(tmp_path / name)
        assert read.dtype == np.uint8
        assert read.shape == (image.size[1], image.size[0], 3)
    np.testing.assert_array_equal(read_image(tmp_path / "bits16.png")[..., 1], RAMP[..., 0])
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), RAMP)


def test_exif_rotation(tmp_path: Path) -> None:
    tall = np.zeros((40, 20, 3), np.uint8)
    tall[:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(np.rot90(tall).copy()).save(tmp_path / "r.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "r.png"), tall)


def test_damaged_images(tmp_path: Path) -> None:
    good = tmp_path / "good.jpg"
    write_image(good, RAMP)
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:200])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("cut", "text", "empty"):
        with pytest.raises(UnreadableImage):
            read_image(tmp_path / f"{name}.jpg")
