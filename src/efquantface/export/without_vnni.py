"""What a file that is not portable loses on x86 processors without VNNI: cosine and TAR on some faces.

One of the two columns is the file in a plain session on this processor; the other, which would need
another processor, is computed in integers (:mod:`emulate`).
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
    """The same student with sums of 32 bits and with those of x86 processors without VNNI.

    Attributes:
        crops: how many faces were embedded.
        measured_without: whether this processor has no VNNI, so that the numbers without are the
            session's and those with it are computed in integers; otherwise it is the other way round.
        cosines: mean cosine to the teacher, with VNNI and without.
        far: the smallest FAR that so many pairs support; None where there are too few.
        tars: TAR at that FAR: teacher, with VNNI, without.
    """

    crops: int
    measured_without: bool
    cosines: tuple[float, float]
    far: float | None = None
    tars: tuple[float, float, float] | None = None


def crops_for(student: FaceModel) -> int:
    """How many faces are worth their time."""
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
        identities: (N,) integers; -1 where they are not known, which leaves TAR out.
        teacher: the teacher's embeddings (N,D) of them.
        session: the exported file's (N,D), in a plain session on this processor.
        lacking: whether this processor has no VNNI.
        progress: told of crops done.
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
