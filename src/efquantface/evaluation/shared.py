"""Finds people who are in both a training set and an evaluation set, by the teacher's embeddings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from efquantface.console import Console
from efquantface.data.checking import Impostors, shared_people
from efquantface.data.faces import FaceSet
from efquantface.data.strangers import centred
from efquantface.evaluation.sets import EvalSet
from efquantface.rows import unit


def people_in_both(
    faces: FaceSet,
    rows: npt.NDArray[np.float32],
    other: FaceSet,
    theirs: npt.NDArray[np.float32],
) -> list[tuple[int, int]]:
    """Pairs of identities of two sets that are one person; images stand for missing identities.

    Args:
        faces, other: the sets.
        rows, theirs: the teacher's embeddings (N,D) of them, of length 1.
    """
    mine, others = numbered_people(faces), numbered_people(other)
    rows, theirs = centred(rows, theirs)
    measured = [Impostors.of(rows, mine), Impostors.of(theirs, others)]
    wider = max(measured, key=lambda m: m.threshold(len(mine) * len(others)))
    return shared_people(rows, mine, theirs, others, wider)


def warn_of_shared(
    faces: FaceSet,
    rows: npt.NDArray[np.float32],
    item: EvalSet,
    theirs: npt.NDArray[np.float32],
    console: Console,
) -> None:
    """Warn of people in both sets; ``rows`` and ``theirs`` are the teacher's embeddings.

    An evaluation on people in the training set is too optimistic.
    """
    shared = people_in_both(faces, unit(rows), item.faces, unit(theirs))
    if shared:
        console.warn(
            f"{len({a for a, _ in shared}):,} people of the training faces seem to be in "
            f"{item.name}, too; see: efq data check FACES --against EVAL --teacher MODEL"
        )


def numbered_people(faces: FaceSet) -> npt.NDArray[np.int64]:
    """Identity numbers (N,); where there are none, every image gets its own."""
    return faces.identities if faces.has_identities else np.arange(len(faces))
