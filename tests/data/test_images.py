"""Every kind of image becomes RGB; damaged ones are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from efquantface.contract import FaceContract
from efquantface.data.faces import load_faces
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
        "photo.jfif": Image.fromarray(RAMP),
        "moving.gif": Image.fromarray(RAMP).convert("P"),
        "pixel.png": Image.fromarray(RAMP[:1, :1]),
    }
    for name, image in forms.items():
        image.save(tmp_path / name, "JPEG" if name.endswith(".jfif") else None)
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


@pytest.mark.parametrize("scale", [1 / 255, 1, 257])
def test_floats_are_scaled(tmp_path: Path, scale: float) -> None:
    grey = RAMP[..., 0]
    Image.fromarray(grey.astype(np.float32) * np.float32(scale)).save(tmp_path / "f.tiff")
    np.testing.assert_array_equal(read_image(tmp_path / "f.tiff")[..., 2], grey)


@pytest.mark.parametrize("worst", [-1.0, np.nan, np.inf, 1e6])
def test_floats_of_unknown_range_are_refused(tmp_path: Path, worst: float) -> None:
    values = RAMP[..., 0].astype(np.float32)
    values[3, 4] = worst
    Image.fromarray(values).save(tmp_path / "f.tif")
    with pytest.raises(UnreadableImage, match="black and white"):
        read_image(tmp_path / "f.tif")


def test_what_is_called_a_photo_is_read_or_counted(tmp_path: Path) -> None:
    for suffix in (".jpg", ".jfif", ".gif", ".heic"):
        (tmp_path / f"a{suffix}").write_bytes(b"\0\0\0\x18ftypheic")
        write_image(tmp_path / f"b{suffix}.png", RAMP)
    found = load_faces(tmp_path, FaceContract(32, 32, 16, template="unknown"))
    assert len(found) == 4
    assert dict(found.skipped)["a.heic"] == ".heic is not decoded here; convert it to .jpg or .png"
    assert len(found.skipped) == 4
