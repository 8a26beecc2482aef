"""InsightFace's verification files (lfw.bin, cfp_fp.bin, agedb_30.bin, ...): image pairs in a pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from efquantface.data.pickles import load_plain
from efquantface.data.source import FaceSource
from efquantface.downloads import stand_in
from efquantface.errors import DataError

FOLDS = 10  # as in the verification benchmarks (LFW and others)


class BinSource(FaceSource):
    """The distinct images of a verification file, and its pairs.

    Attributes:
        a, b: int64 (P,) item indices of each pair.
        same: bool (P,), True for genuine pairs.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            DataError: it is not (list of 2 P image files, list of P decisions).
        """
        self.where, self.root, self.path = str(path), path.parent, path
        images, same = _contents(path)
        known: dict[bytes, int] = {}
        order = [known.setdefault(image, len(known)) for image in images]
        self.images = list(known)
        first = {item: position for position, item in reversed(list(enumerate(order)))}
        self.keys = [first[item] for item in range(len(self.images))]
        self.a, self.b = np.asarray(order[0::2], np.int64), np.asarray(order[1::2], np.int64)
        self.same = same
        self.identities = np.full(len(self.images), -1, np.int64)
        self.identity_names = []

    def name(self, index: int) -> str:
        return f"{self.path.name}#{self.keys[index]}"

    def encoded(self, index: int) -> bytes:
        return self.images[index]


def _contents(path: Path) -> tuple[list[bytes], npt.NDArray[np.bool_]]:
    instead = stand_in(path)
    if instead:
        raise DataError(f"{path}: {instead}")
    data = load_plain(path)
    if not (isinstance(data, tuple | list) and len(data) == 2):
        raise DataError(f"{path}: holds no pair of (images, decisions), as lfw.bin does")
    images, same = data
    if not isinstance(images, list) or not isinstance(same, list | tuple | np.ndarray):
        raise DataError(f"{path}: holds no lists of images and decisions, as lfw.bin does")
    if len(images) == 0 or len(images) != 2 * len(same):
        raise DataError(
            f"{path}: has {len(images)} images for {len(same)} pairs; two per pair are needed"
        )
    decisions = [_decision(value, path, number) for number, value in enumerate(same)]
    known: dict[int, bytes] = {}  # an image that is referred to a thousand times is kept once
    for number, value in enumerate(images):
        if id(value) not in known:
            known[id(value)] = _image(value, path, number)
    return [known[id(value)] for value in images], np.asarray(decisions, bool)


def _decision(value: Any, path: Path, number: int) -> bool:
    if not isinstance(value, bool | int | np.bool_ | np.integer) or int(value) not in (0, 1):
        plain = isinstance(value, float | str) or (isinstance(value, int) and abs(value) < 1 << 64)
        what = repr(value)[:40] if plain else type(value).__name__
        raise DataError(f"{path}: the decision of pair {number} is {what}, not True or False")
    return bool(value)


def _image(value: Any, path: Path, number: int) -> bytes:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        return value.tobytes()  # the bytes that cv2.imencode returns
    raise DataError(f"{path}: image {number} is {type(value).__name__}, not an encoded image")


def contiguous_folds(count: int, folds: int) -> npt.NDArray[np.int64]:
    """Fold (count,) of each pair, in order; the first folds may be one pair larger."""
    sizes = np.full(folds, count // folds)
    sizes[: count % folds] += 1
    return np.repeat(np.arange(folds), sizes)
