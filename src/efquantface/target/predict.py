"""What training will give, told from students that are not trained.

Fine-tuning takes a share of the distance to the teacher that depends on what made it: rounding weights,
or removing channels (:func:`trained`; how well that holds: ``docs/results.md``). The distance that is
left keeps its direction: an untrained student's errors, made smaller, stand for the trained student's
(:func:`nearer`), so that every threshold can be tried on them.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from efquantface.errors import EvaluationError
from efquantface.evaluation.allpairs import score_all_pairs
from efquantface.evaluation.metrics import MIN_FALSE_ACCEPTS, supported_fars, tar_at_far
from efquantface.rows import unit

Float32 = npt.NDArray[np.float32]

# of the distance before training, after so many epochs; `python -m benchmarks predicted`
ROUNDED, PRUNED = (0.82, 2), (0.44, 12)
_MORE_EPOCHS = 0.3  # the share falls with the epochs to this power
_STEPS = 40
_FARS = (1e-1, 1e-2, 1e-3, 1e-4)


def trained(before: float, epochs: int, pruned: bool) -> float:
    """The mean ``1 - cosine`` to the teacher after ``epochs``, by what it was before training.

    >>> round(trained(0.05, 12, pruned=True), 3)
    0.022
    >>> trained(0.05, 0, pruned=False)
    0.05
    """
    if not epochs:
        return before
    share, usual = PRUNED if pruned else ROUNDED
    fewer: float = (epochs / usual) ** -_MORE_EPOCHS
    return before * min(share * fewer, 1.0)


def distance(teacher: Float32, student: Float32) -> float:
    """Mean ``1 - cosine`` of rows (N,D)."""
    return float(1 - (unit(teacher) * unit(student)).sum(axis=1).mean())


def nearer(teacher: Float32, student: Float32, wanted: float) -> Float32:
    """Embeddings (N,D) on the way from the teacher's to the student's, ``wanted`` from the teacher's.

    A student that is nearer than that is given back as it is.
    """
    start, error = unit(teacher), unit(student) - unit(teacher)
    if distance(teacher, student) <= wanted:
        return unit(student)
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if distance(start, start + np.float32(middle) * error) < wanted:
            low = middle
        else:
            high = middle
    return unit(start + np.float32(high) * error)


def strictest_far(identities: npt.NDArray[np.int64]) -> float:
    """The strictest FAR down to 1e-4 that all pairs of N faces support.

    Raises:
        EvaluationError: not even 0.1.
    """
    sizes = np.unique(identities, return_counts=True)[1]
    impostors = (len(identities) ** 2 - int((sizes**2).sum())) // 2
    supported = supported_fars(impostors, _FARS)
    if not supported:
        raise EvaluationError(
            f"{len(identities)} faces are too few to predict losses on; give more"
        )
    return supported[-1]


def lost(
    teacher: Float32, student: Float32, identities: npt.NDArray[np.int64], far: float
) -> float:
    """Points of TAR at ``far`` that the student loses among all pairs of N embeddings.

    Args:
        teacher, student: (N,D).
        identities: (N,).

    Raises:
        EvaluationError: too few impostor pairs for ``far``, or no genuine pair.
    """
    tars = []
    for rows in (teacher, student):
        pairs = score_all_pairs(rows, identities, kept_far=far)
        if far * pairs.impostors < MIN_FALSE_ACCEPTS - 1e-9 or not len(pairs.genuine):
            needed = math.ceil(MIN_FALSE_ACCEPTS / far)
            raise EvaluationError(
                f"FAR {far:g} needs {needed:,} impostor pairs, and genuine ones; these faces have "
                f"{pairs.impostors:,} and {len(pairs.genuine):,}: give more faces with identities, or "
                "a larger FAR"
            )
        found = tar_at_far(pairs.genuine, pairs.top_impostors, far, pairs.impostors)
        tars.append(100 * found.tar)
    return tars[0] - tars[1]
