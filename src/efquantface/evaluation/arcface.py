"""The numbers that arcface_torch prints, for comparison with published ones.

Its ``verification.test`` adds the embeddings of a crop and of its mirror image, not normalized, and
normalizes the sum. It takes squared Euclidean distances. On nine tenths of the pairs, in the file's
order, it finds the best of 400 thresholds from 0 to 4. ``Accuracy-Flip`` is the mean over the ten
tenths; ``XNorm`` is the mean length of all embeddings. Our own accuracy uses the exact best threshold,
not a grid.

Source: ``recognition/arcface_torch/eval/verification.py`` of InsightFace.
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
        EvaluationError: an embedding is not finite or has length zero.
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
