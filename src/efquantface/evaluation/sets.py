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
        a, b: (P,) image indices.
        same: (P,) True for genuine pairs.
        folds: (P,) fold of each pair.
        dropped: pairs left out because an image of theirs is not there or cannot be read.
        missing: images that are listed and not there.
    """

    a: npt.NDArray[np.int64]
    b: npt.NDArray[np.int64]
    same: npt.NDArray[np.bool_]
    folds: npt.NDArray[np.int64]
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def left_out(self) -> list[str]:
        """What was left out, as a sentence; none where all pairs are there."""
        if not self.dropped:
            return []
        total = len(self.same) + len(self.dropped)
        why = "images that cannot be read"
        if self.missing:
            why = f"{len(self.missing):,} images are not there, {self.missing[0]} for example"
        return [
            f"{len(self.dropped):,} of {total:,} pairs left out ({why}); numbers of other subsets do "
            "not compare"
        ]


@dataclass
class EvalSet(EvalItem):
    """Faces with a protocol: listed pairs, all pairs of a folder, or both.

    Attributes:
        name: for tables.
        all_pairs: whether every pair of images is scored too (needs identities).
        family: the benchmark that this set is one group of (RFW), for the spread.
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
