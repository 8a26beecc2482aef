"""Finds faces and their five landmarks by libfacedetection (package yuface), or a YuNet file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import local

import cv2
import numpy as np
import numpy.typing as npt

from efquantface.errors import ModelFileError, RuntimeMissingError

_LONGEST = 640  # pixels; libfacedetection is less accurate on larger images
_CONFIDENCE = 0.6


@dataclass(frozen=True)
class Face:
    """A detected face, in pixels of the image.

    Attributes:
        confidence: 0 to 1.
        box: x, y, width, height.
        landmarks: float64 (5,2), as of :class:`~efquantface.data.template.Template`.
    """

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
    bgr, scale = _small_bgr(image)
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


Detector = Callable[[npt.NDArray[np.uint8]], list[Face]]


class YuNet:
    """A YuNet ONNX file (2023 form) through OpenCV; called like :func:`detect`."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            ModelFileError: there is no such file, or OpenCV cannot run it as a YuNet.
        """
        self.path = path
        if not path.is_file():
            raise ModelFileError(f"{path}: no such file")
        self._threads = local()  # OpenCV's detector keeps the size of an image: one per thread
        self(np.zeros((64, 64, 3), np.uint8))

    def __call__(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """Faces in a uint8 RGB image (H,W,3), most confident first."""
        bgr, scale = _small_bgr(image)
        size = (bgr.shape[1], bgr.shape[0])
        try:
            if not hasattr(self._threads, "detector"):
                self._threads.detector = cv2.FaceDetectorYN.create(
                    str(self.path), "", size, score_threshold=_CONFIDENCE
                )
            self._threads.detector.setInputSize(size)
            _, rows = self._threads.detector.detect(bgr)
        except (cv2.error, SystemError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelFileError(f"{self.path}: OpenCV finds no YuNet in it ({reason})") from None
        faces = []
        for row in np.empty((0, 15)) if rows is None else rows.astype(np.float64):
            box, points = row[:4] / scale, row[4:14].reshape(5, 2) / scale
            faces.append(Face(float(row[14]), (box[0], box[1], box[2], box[3]), points))
        return sorted(faces, key=lambda face: -face.confidence)


def _small_bgr(image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], float]:
    """The image as BGR, at most 640 pixels wide and high, and the scale from 0 to 1 that was applied."""
    height, width = image.shape[:2]
    scale = min(1.0, _LONGEST / max(height, width))
    if scale < 1:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(image[:, :, ::-1]), scale
