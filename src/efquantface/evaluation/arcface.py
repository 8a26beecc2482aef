"""The numbers that arcface_torch prints, so that ours can be held beside published ones.

Its ``verification.test`` sums the embeddings of a crop and of its mirror image as they come, normalizes
the sum, takes squared Euclidean distances, and looks for the best of 400 thresholds from 0 to 4 on nine
tenths of the pairs, in the file's order. ``Accuracy-Flip`` is the mean over the ten tenths; ``XNorm``
the mean length of all embeddings. Our own accuracy takes the exact best threshold instead of the grid.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from efquantface.data.verification_bin import FOLDS, contiguous_folds
from efquantface.rows import unit

_GRID = np.arange(0, 4, 0.01)


def grid_accuracy(
    first: npt.NDArray[np.float32],
    second: npt.NDArray[np.float32],
    same: npt.NDArray[np.bool_],
) -> tuple[float, float]:
    """(mean, SD over folds) of the accuracy with thresholds from the grid.

    Args:
        first, second: embeddings (P,D) of each pair's sides, crop and mirror summed.
        same: (P,) True for genuine pairs, in the file's order.

    Raises:
        EvaluationError: an embedding that is not finite or has no length.
    """
    distance = np.square(unit(first) - unit(second)).sum(axis=1)
    # hits[t]: how many pairs of a fold are decided correctly at threshold t
    folds = contiguous_folds(len(same), FOLDS)
    hits = np.zeros((FOLDS, len(_GRID)))
    sizes = np.bincount(folds, minlength=FOLDS)
    for fold in range(FOLDS):
        chosen = folds == fold
        accepted = distance[chosen, None] < _GRID
        hits[fold] = (accepted == same[chosen, None]).sum(axis=0)
    accuracies = []
    for fold in range(FOLDS):
        rest = hits.sum(axis=0) - hits[fold]
        accuracies.append(hits[fold, int(np.argmax(rest))] / sizes[fold])
    return float(np.mean(accuracies)), float(np.std(accuracies))
