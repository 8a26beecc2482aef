"""Identification on a folder: ``gallery`` and ``probe``, with one subfolder per identity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet, load_faces
from efquantface.errors import DataError
from efquantface.evaluation.items import Embedded, EvalItem, Options
from efquantface.interfaces import Embeds, Progress
from efquantface.rows import unit


@dataclass
class GallerySet(EvalItem):
    """Faces to enrol and faces to search for.

    Attributes:
        name: for tables.
        gallery, probe: faces; people are matched by the names of their folders.
        subjects: int64 (G,) and (P,) numbers of people, common to both.
    """

    name: str
    gallery: FaceSet
    probe: FaceSet
    subjects: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

    def embed(
        self, embedder: Embeds, options: Options, progress: Progress | None = None
    ) -> Embedded:
        """Rows of the gallery's images, then of the probes'."""
        images = np.concatenate([self.gallery.images, self.probe.images])
        return Embedded(embedder.embed(images, flip=options.flips, progress=progress))

    def enrolled(
        self, rows: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """One vector per person, (S,D) of length 1: the mean of the normalized embeddings; and subjects.

        Args:
            rows: embeddings (N,D) of :meth:`embed`.

        Raises:
            EvaluationError: an embedding is not finite or has length zero.
        """
        images = unit(rows[: len(self.gallery)], f"{self.name}, gallery")
        people, index = np.unique(self.subjects[0], return_inverse=True)
        pooled = np.zeros((len(people), images.shape[1]), np.float32)
        np.add.at(pooled, index, images)
        return unit(pooled, f"{self.name}, gallery"), people


def load_gallery(
    name: str,
    root: Path,
    contract: FaceContract,
    *,
    resize: bool = False,
    progress: Progress | None = None,
) -> GallerySet:
    """Read ``root/gallery`` and ``root/probe``.

    Raises:
        DataError: one of them is missing or has no identities.
    """
    sets = []
    for part in ("gallery", "probe"):
        faces = load_faces(root / part, contract, resize=resize, progress=progress)
        if not faces.has_identities:
            raise DataError(f"{root / part}: identification needs one subfolder per identity")
        sets.append(faces)
    gallery, probe = sets
    people = sorted({*gallery.identity_names, *probe.identity_names})
    numbers = {person: n for n, person in enumerate(people)}
    subjects = [
        np.asarray([numbers[f.identity_names[i]] for i in f.identities], np.int64) for f in sets
    ]
    return GallerySet(name, gallery, probe, (subjects[0], subjects[1]))
