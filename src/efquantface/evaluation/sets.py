"""Verification sets: faces with listed pairs, all pairs, or both."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from efquantface.data.faces import FaceSet
from efquantface.data.views import mirrored as mirrored_crops
from efquantface.evaluation.items import Embedded, EvalItem, Options
from efquantface.interfaces import Embeds, Progress


@dataclass
class Pairs:
    """Verification pairs as indices into a face set.

    Attributes:
        a, b: int64 (P,) image indices.
        same: bool (P,), True for genuine pairs.
        folds: int64 (P,) fold of each pair.
        dropped: pairs left out, since an image is missing or cannot be read.
        missing: listed images that do not exist.
    """

    a: npt.NDArray[np.int64]
    b: npt.NDArray[np.int64]
    same: npt.NDArray[np.bool_]
    folds: npt.NDArray[np.int64]
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def left_out(self) -> list[str]:
        """A sentence on the pairs left out; empty where there are none."""
        if not self.dropped:
            return []
        total = len(self.same) + len(self.dropped)
        why = "images that cannot be read"
        if self.missing:
            why = f"{len(self.missing):,} images are not there, for example {self.missing[0]}"
        return [
            f"{len(self.dropped):,} of {total:,} pairs left out ({why}); the numbers do not compare "
            "with those of other subsets"
        ]


@dataclass
class EvalSet(EvalItem):
    """Faces with a protocol: listed pairs, all pairs of a folder, or both.

    Attributes:
        name: for tables.
        faces: the images.
        pairs: the listed pairs; None for all pairs only.
        all_pairs: whether every pair of images is scored, too (needs identities).
        family: the benchmark of which this set is a group (RFW), for the spread between groups.
    """

    name: str
    faces: FaceSet
    pairs: Pairs | None
    all_pairs: bool
    family: str = ""

    def embed(
        self, embedder: Embeds, options: Options, progress: Progress | None = None
    ) -> Embedded:
        images = self.faces.images
        if not options.arcface:
            return Embedded(embedder.embed(images, flip=options.flip, progress=progress))
        report = progress or (lambda done, total: None)
        count = len(images)
        plain = embedder.embed(images, progress=lambda done, _: report(done, 2 * count))
        mirrored = embedder.embed(
            mirrored_crops(images), progress=lambda done, _: report(count + done, 2 * count)
        )
        lengths = (np.linalg.norm(plain, axis=1) + np.linalg.norm(mirrored, axis=1)) / 2
        return Embedded(plain + mirrored, np.asarray(lengths, np.float32))
