"""Finding faces and their five landmarks, with libfacedetection (package yuface)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from efquantface.errors import RuntimeMissingError

_LONGEST = 640  # libfacedetection's accuracy falls on larger pictures
_CONFIDENCE = 0.6


@dataclass(frozen=True)
class Face:
    """A detected face: confidence in 0..1, box (x, y, width, height) and landmarks (5,2)."""

    confidence: float
    box: tuple[float, float, float, float]
    landmarks: npt.NDArray[np.float64]

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return self.box[2] * self.box[3]


def detector_available() -> bool:
    """Whether the detector's package can be imported here."""
    try:
        import yuface  # noqa: F401
    except ImportError:
        return False
    return True


def detect(image: npt.NDArray[np.uint8]) -> list[Face]:
    """Faces in a uint8 RGB image (H,W,3), most confident first.

    Raises:
        RuntimeMissingError: the detector is not installed.
    """
    try:
        import yuface
    except ImportError:
        raise RuntimeMissingError(
            "the face detector is not installed; pip install 'efquantface[align]' "
            "(wheels exist up to some Python versions only)"
        ) from None
    import cv2

    height, width = image.shape[:2]
    scale = min(1.0, _LONGEST / max(height, width))
    if scale < 1:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        confidences, boxes, points = yuface.detect(bgr, conf=_CONFIDENCE)
    boxes = boxes.astype(np.float64) / scale
    points = points.astype(np.float64) / scale
    faces = [
        Face(float(c) / 100, (b[0], b[1], b[2], b[3]), p[:10].reshape(5, 2))
        for c, b, p in zip(confidences, boxes, points, strict=True)
    ]
    return sorted(faces, key=lambda face: -face.confidence)
