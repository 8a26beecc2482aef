"""Landmark templates and the warp onto them (least-squares similarity, Umeyama 1991)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from efquantface.errors import DataError

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Template:
    """A template (alignment): where five landmarks belong in a crop.

    Attributes:
        size: side of the square crop in pixels.
        points: (5,2) x, y of left eye, right eye, nose tip, left and right mouth corner, where left is
            the image's left.
    """

    size: int
    points: tuple[tuple[float, float], ...]

    def array(self) -> Points:
        """The points as a float64 array (5,2)."""
        return np.asarray(self.points, np.float64)


# arcface112: InsightFace's template. dlib150: libfacedetection's mean landmarks in dlib's own chips
# (shape_predictor_5, size 150, padding 0.25), measured by benchmarks/dlib_template.py.
TEMPLATES: dict[str, Template] = {
    "arcface112": Template(
        112,
        (
            (38.2946, 51.6963),
            (73.5318, 51.5014),
            (56.0252, 71.7366),
            (41.5493, 92.3655),
            (70.7299, 92.2041),
        ),
    ),
    "dlib150": Template(
        150,
        ((45.36, 44.84), (100.29, 44.10), (70.57, 76.67), (50.50, 101.21), (96.43, 100.39)),
    ),
}


def template(name: str) -> Template:
    """A template by name.

    Raises:
        DataError: there is none of that name.
    """
    if name not in TEMPLATES:
        raise DataError(f"template {name!r} is not known; choose from {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def similarity(source: Points, target: Points) -> npt.NDArray[np.float64]:
    """The least-squares similarity (2,3) that maps ``source`` (K,2) to ``target`` (K,2).

    Umeyama 1991, eqs. 38-43: scale, rotation and translation without reflection.

    Raises:
        DataError: the source points coincide.
    """
    mean_s, mean_t = source.mean(axis=0), target.mean(axis=0)
    centred_s, centred_t = source - mean_s, target - mean_t
    variance = float((centred_s**2).sum(axis=1).mean())
    if variance < 1e-12:
        raise DataError("the landmarks coincide; no similarity can be fitted")
    u, d, vt = np.linalg.svd(centred_t.T @ centred_s / len(source))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])
    rotation = u @ np.diag(sign) @ vt
    scale = float((d * sign).sum()) / variance
    linear = scale * rotation
    return np.hstack([linear, (mean_t - linear @ mean_s)[:, None]])


def warp(
    image: npt.NDArray[np.uint8], landmarks: Points, wanted: Template
) -> npt.NDArray[np.uint8]:
    """The aligned crop, uint8 (size,size,3), of an image uint8 (H,W,3) with landmarks (5,2).

    Raises:
        DataError: the landmarks coincide.
    """
    matrix = similarity(landmarks, wanted.array())
    # a face much larger than the crop would alias: halve the photo first
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    while scale < 0.5 and min(image.shape[:2]) > 2:
        image = np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        matrix[:, :2] *= 2
        scale *= 2
    warped = cv2.warpAffine(image, matrix, (wanted.size, wanted.size), flags=cv2.INTER_LINEAR)
    return np.asarray(warped, np.uint8)
