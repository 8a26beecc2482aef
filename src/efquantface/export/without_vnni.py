"""What a file that is not portable loses on x86 processors without VNNI: cosine and TAR on some faces.

The file runs in a plain session on this processor, with or without VNNI. The other case would need
another processor; it is computed in integers (:mod:`emulate`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from efquantface.evaluation.allpairs import score_all_pairs
from efquantface.evaluation.metrics import supported_fars, tar_at_far
from efquantface.export.emulate import emulate
from efquantface.graph.macs import macs
from efquantface.graph.model import FaceModel
from efquantface.interfaces import Progress
from efquantface.rows import mean_cosine

Rows = npt.NDArray[np.float32]
_CROPS = 512
_FEWEST = 128  # for large networks
_WORK = 5e11  # multiply-accumulates; some minutes in integers on two cores
_BATCH = 16


@dataclass(frozen=True)
class WithoutVnni:
    """One student with 32-bit sums (with VNNI) and with 16-bit sums (without VNNI).

    Attributes:
        crops: how many faces were embedded.
        measured_without: this processor has no VNNI: numbers without VNNI are the session's, numbers
            with VNNI are computed in integers. Otherwise it is the reverse.
        cosines: mean cosine to the teacher, with VNNI and without.
        far: the smallest FAR that the impostor pairs support; None where there are too few.
        tars: TAR at that FAR: of the teacher, with VNNI, without VNNI.
    """

    crops: int
    measured_without: bool
    cosines: tuple[float, float]
    far: float | None = None
    tars: tuple[float, float, float] | None = None


def crops_for(student: FaceModel) -> int:
    """How many faces to embed, so that it takes minutes."""
    c = student.contract
    return int(np.clip(_WORK / macs(student.graph, c.height, c.width), _FEWEST, _CROPS))


def lost_without_vnni(
    student: FaceModel,
    faces: npt.NDArray[np.uint8],
    identities: npt.NDArray[np.int64],
    teacher: Rows,
    session: Rows,
    *,
    lacking: bool,
    progress: Progress | None = None,
) -> WithoutVnni:
    """Compare the student with and without VNNI.

    Args:
        student: quantized.
        faces: uint8 RGB crops (N,H,W,3).
        identities: (N,) integers; -1 where unknown. Without identities TAR is left out.
        teacher: the teacher's embeddings (N,D) of these crops.
        session: the exported file's embeddings (N,D), from a plain session on this processor.
        lacking: whether this processor has no VNNI.
        progress: called with crops done and crops in all.
    """
    parts = []
    for start in range(0, len(faces), _BATCH):
        part = faces[start : start + _BATCH]
        pixels = torch.from_numpy(student.contract.pixels(part)).float()
        parts.append(emulate(student, pixels, sums16=not lacking).numpy())
        if progress:
            progress(start + len(part), len(faces))
    emulated = np.concatenate(parts)
    both = (emulated, session) if lacking else (session, emulated)
    cosines = mean_cosine(teacher, both[0]), mean_cosine(teacher, both[1])
    found = [score_all_pairs(rows, identities) for rows in (teacher, *both)]
    fars = [f for f in supported_fars(found[0].impostors) if f <= found[0].kept_far]
    if not fars or not len(found[0].genuine):
        return WithoutVnni(len(faces), lacking, cosines)
    far = fars[-1]
    tars = [tar_at_far(r.genuine, r.top_impostors, far, r.impostors).tar for r in found]
    return WithoutVnni(len(faces), lacking, cosines, far, (tars[0], tars[1], tars[2]))
