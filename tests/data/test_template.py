"""Similarity transforms and warps against least squares."""

from __future__ import annotations

import numpy as np
import pytest

from efquantface.data.template import TEMPLATES, similarity, template, warp
from efquantface.errors import DataError


def test_similarity_against_least_squares() -> None:
    rng = np.random.default_rng(0)
    source = rng.uniform(0, 100, (5, 2))
    target = template("arcface112").array()
    matrix = similarity(source, target)
    # x' = a x - b y + tx, y' = b x + a y + ty is linear in its four parameters
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    np.testing.assert_allclose(matrix, [[a, -b, tx], [b, a, ty]], atol=1e-8)
    with pytest.raises(DataError, match="coincide"):
        similarity(np.ones((5, 2)), target)


@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
def test_warp_puts_landmarks_on_the_template(scale: float) -> None:
    wanted = TEMPLATES["arcface112"]
    points = wanted.array() * scale + 20
    image = np.zeros((int(150 * scale) + 60,) * 2 + (3,), np.uint8)
    yy, xx = np.mgrid[: image.shape[0], : image.shape[1]]
    eye = np.hypot(xx - points[0, 0], yy - points[0, 1]) < 4 * scale
    image[eye] = 255
    crop = warp(image, points, wanted)
    assert crop.shape == (112, 112, 3)
    found = np.argwhere(crop[..., 0] > 128).mean(axis=0)[::-1]
    assert np.abs(found - wanted.array()[0]).max() < 1.0
