"""Predicts the loss of a trained student from the untrained one.

Training reduces the distance to the teacher by a factor, which depends on the distance's cause: rounding
weights to many or to few bits, or removing channels (:func:`trained`; how well this predicts:
``docs/experiments/2026-11-28-predicting.md``). The errors
are assumed to keep their direction. So an untrained student's errors, made smaller, stand for those of
the trained student (:func:`nearer`), and losses can be predicted at every threshold.
"""

from __future__ import annotations

import math
from enum import Enum

import numpy as np
import numpy.typing as npt

from efquantface.errors import EvaluationError
from efquantface.evaluation.allpairs import score_all_pairs
from efquantface.evaluation.metrics import MIN_FALSE_ACCEPTS, supported_fars, tar_at_far
from efquantface.rows import mean_cosine, unit

Float32 = npt.NDArray[np.float32]


class Cause(Enum):
    """What an untrained student's distance to its teacher comes from."""

    ROUNDED = "weights of 6 bits or more"
    FEW_BITS = "weights of fewer bits"
    PRUNED = "channels removed"


# share of the distance that is left, after so many epochs; `python -m benchmarks predicted`
LEFT = {Cause.ROUNDED: (0.78, 2), Cause.FEW_BITS: (0.53, 4), Cause.PRUNED: (0.31, 12)}
_MORE_EPOCHS = 0.14  # the share falls with the epochs to this power
_STEPS = 40
_FARS = (1e-1, 1e-2, 1e-3, 1e-4)


def cause(weight_bits: int, pruned: bool) -> Cause:
    """What costs most where weights have so many bits and channels were removed, or were not."""
    if pruned:
        return Cause.PRUNED
    return Cause.FEW_BITS if weight_bits < 6 else Cause.ROUNDED


def trained(before: float, epochs: int, why: Cause) -> float:
    """Predicted mean 1 - cosine to the teacher after training.

    Args:
        before: mean 1 - cosine before training, 0 to 2.
        epochs: of training, 0 or more.
        why: what the distance comes from.

    >>> round(trained(0.1, 12, Cause.PRUNED), 3)
    0.031
    >>> trained(0.05, 0, Cause.ROUNDED)
    0.05
    """
    if not epochs:
        return before
    share, usual = LEFT[why]
    fewer: float = (epochs / usual) ** -_MORE_EPOCHS
    return before * min(share * fewer, 1.0)


def distance(teacher: Float32, student: Float32) -> float:
    """Mean 1 - cosine between the rows of two arrays (N,D) of embeddings."""
    return 1 - mean_cosine(teacher, student)


def nearer(teacher: Float32, student: Float32, wanted: float) -> Float32:
    """Unit embeddings (N,D) between the teacher's and the student's, at distance ``wanted``.

    A student that is nearer than ``wanted`` keeps its embeddings.

    Args:
        teacher, student: embeddings (N,D).
        wanted: mean 1 - cosine to the teacher.
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
    """The strictest FAR that all pairs of these faces support, from 0.1 down to 1e-4.

    Args:
        identities: (N,) of the faces.

    Raises:
        EvaluationError: the faces do not support 0.1.
    """
    sizes = np.unique(identities, return_counts=True)[1]
    impostors = (len(identities) ** 2 - int((sizes**2).sum())) // 2
    supported = supported_fars(impostors, _FARS)
    if not supported:
        raise EvaluationError(
            f"{len(identities)} faces are too few to predict losses on; give more"
        )
    return supported[-1]


def tar(embeddings: Float32, identities: npt.NDArray[np.int64], far: float) -> float:
    """TAR at ``far`` on all pairs, in percent.

    Args:
        embeddings: (N,D).
        identities: (N,).
        far: above 0 and below 1.

    Raises:
        EvaluationError: there are too few impostor pairs for ``far``, or no genuine pair.
    """
    pairs = score_all_pairs(embeddings, identities, kept_far=far)
    if not supported_fars(pairs.impostors, (far,)) or not len(pairs.genuine):
        needed = math.ceil(MIN_FALSE_ACCEPTS / far)
        raise EvaluationError(
            f"FAR {far:g} needs {needed:,} impostor pairs, and genuine ones; these faces have "
            f"{pairs.impostors:,} and {len(pairs.genuine):,}: give more faces with identities, or "
            "a larger FAR"
        )
    return 100 * tar_at_far(pairs.genuine, pairs.top_impostors, far, pairs.impostors).tar
