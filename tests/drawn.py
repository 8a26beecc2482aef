"""Portraits drawn of ellipses: faces that a detector finds, of nobody."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from efquantface.data.template import TEMPLATES, warp

_SIZE = 240
LANDMARKS = np.array([[95, 112], [145, 112], [120, 142], [102, 166], [138, 166]], np.float64)


def portrait(person: int, photo: int = 0) -> np.ndarray:
    """A photo (240,240,3) uint8 RGB; a person's photos differ in light and in noise."""
    rng = np.random.default_rng([person, 0])
    backdrop, hair, skin, lips = (
        tuple(int(v) for v in rng.integers(low, high))
        for low, high in (
            ((40, 40, 40), (220, 220, 220)),
            ((20, 15, 5), (120, 90, 60)),
            ((190, 140, 110), (250, 205, 180)),
            ((150, 50, 50), (200, 90, 90)),
        )
    )
    picture = Image.new("RGB", (_SIZE, _SIZE), backdrop)
    draw = ImageDraw.Draw(picture)

    def ellipse(x: float, y: float, rx: float, ry: float, fill: tuple[int, ...]) -> None:
        draw.ellipse([x - rx, y - ry, x + rx, y + ry], fill=fill)

    ellipse(120, 116, 62, 70, hair)
    ellipse(120, 116, 54, 72, skin)
    for x in (95, 145):
        ellipse(x, 112, 11, 7, (245, 245, 245))
        ellipse(x, 112, 5.5, 5.5, hair)
        draw.arc([x - 16, 94, x + 16, 114], 200, 340, fill=hair, width=4)
    draw.polygon([(120, 118), (110, 145), (130, 145)], fill=tuple(int(0.85 * v) for v in skin))
    ellipse(120, 166, 20, 6, lips)
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(1.5)), np.float64)
    light = np.random.default_rng([person, 1, photo])
    noisy = blurred * light.uniform(0.85, 1.1) + light.normal(0, 4, blurred.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def crop(person: int, photo: int = 0) -> np.ndarray:
    """The portrait cut to arcface112: (112,112,3) uint8 RGB."""
    return warp(portrait(person, photo), LANDMARKS, TEMPLATES["arcface112"])
