"""The layouts that files declare, and crops as they take them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from efquantface.runtime.feeding import Layout, fed, layout_of


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ([1, 3, 112, 96], Layout(1, 112, 96)),
        (["n", 3, "h", "w"], Layout(None, None, None)),
        ([None, 160, 160, 3], Layout(None, 160, 160, 3, True)),
        ([0, 0, 0, 3], Layout(None, None, None, 3, True)),
        (["n", 1, 128, 128], Layout(None, 128, 128, 1)),
        (["n", 128, 128, 1], Layout(None, 128, 128, 1, True)),
        ([0, 0, 0, 0], Layout(None, None, None)),
        ([1, 3, 3, 3], Layout(1, 3, 3)),
        ([1, 4, 112, 112], None),
        ([1, 3, 112], None),
    ],
)
def test_a_layout_is_read_off_a_shape(shape: list, wanted: Layout | None) -> None:
    assert layout_of(shape) == wanted


def test_crops_are_fed_as_they_are_taken() -> None:
    faces = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    x = faces.transpose(0, 3, 1, 2).astype(np.float32)
    last = fed(x, Layout(None, 5, 4, 3, True), "tensor(uint8)")
    assert last.dtype == np.uint8
    np.testing.assert_array_equal(last, faces)
    assert fed(x, Layout(None, 5, 4), "tensor(float16)").dtype == np.float16
    grey = fed(x, Layout(None, 5, 4, 1), "tensor(uint8)")
    wanted = np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in faces])[:, None]
    assert np.abs(grey.astype(int) - wanted.astype(int)).max() <= 1
