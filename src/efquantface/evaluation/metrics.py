"""Verification metrics as pure functions of scores. A pair is accepted where score >= threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from efquantface.errors import EvaluationError

Scores = npt.NDArray[np.float32]
MIN_FALSE_ACCEPTS = 3  # a FAR is reported where it accepts at least this many impostor pairs
LOOKED_FOR = (1e-1, 1e-2, 1e-3, 1e-4)  # FARs that readers expect; their absence is explained


@dataclass(frozen=True)
class Operating:
    """TAR at a FAR.

    Attributes:
        far: the target, a share of impostor pairs.
        threshold: the smallest cosine whose FAR does not exceed the target; pairs at or above it are
            accepted.
        tar: share of genuine pairs accepted.
    """

    far: float
    threshold: float
    tar: float


def tar_at_far(
    genuine: Scores, impostor: Scores, far: float, total: int | None = None
) -> Operating:
    """TAR@FAR: at most k = floor(far * M) of M impostor pairs are accepted, ties are rejected.

    Args:
        genuine: scores of genuine pairs (K,).
        impostor: scores of impostor pairs; at least the k + 1 largest of them.
        far: target share, 0 < far < 1.
        total: M, where ``impostor`` holds only the largest scores.

    Raises:
        EvaluationError: no genuine or no impostor pairs, or too few scores for this FAR.
    """
    if len(genuine) == 0 or len(impostor) == 0:
        raise EvaluationError("TAR@FAR needs genuine and impostor pairs")
    count = total or len(impostor)
    allowed = int(np.floor(far * count + 1e-9))
    if allowed >= len(impostor):
        if allowed >= count:
            return Operating(far, float(min(genuine.min(), impostor.min())), 1.0)
        raise EvaluationError(
            f"FAR {far} needs {allowed + 1} impostor scores, {len(impostor)} kept"
        )
    edge = np.partition(impostor, len(impostor) - 1 - allowed)[len(impostor) - 1 - allowed]
    threshold = float(np.nextafter(edge, np.float32(np.inf)))
    return Operating(far, threshold, float((genuine > edge).mean()))


def supported_fars(
    impostors: int, wanted: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
) -> list[float]:
    """The FARs of ``wanted`` at which at least 3 of ``impostors`` pairs are accepted."""
    return [far for far in wanted if far * impostors >= MIN_FALSE_ACCEPTS - 1e-9]


def why_left_out(genuine: int, impostors: int) -> list[str]:
    """Sentences that say why expected rows of TAR are missing; empty where none is.

    >>> why_left_out(600, 600)
    ['TAR@FAR=0.001 and below left out: needs 3,000 impostor pairs, there are 600']
    """
    if not genuine or not impostors:
        kind = "genuine" if not genuine else "impostor"
        return [f"TAR@FAR left out: there are no {kind} pairs"]
    missing = [far for far in LOOKED_FOR if far not in supported_fars(impostors)]
    if not missing:
        return []
    needed = math.ceil(MIN_FALSE_ACCEPTS / missing[0] - 1e-6)
    below = " and below" if len(missing) > 1 else ""
    return [
        f"TAR@FAR={missing[0]:g}{below} left out: needs {needed:,} impostor pairs, "
        f"there are {impostors:,}"
    ]


def best_threshold(scores: Scores, same: npt.NDArray[np.bool_]) -> float:
    """The threshold with the most correct decisions; of equally good ones, the middle one.

    Args:
        scores: (P,).
        same: (P,) True for genuine pairs.
    """
    order = np.argsort(scores, kind="stable")
    ranked, labels = scores[order].astype(np.float64), same[order]
    # accepting from position i on: correct are the impostors below i and the genuine from i on
    correct = np.concatenate([[0], np.cumsum(~labels)]) + np.concatenate(
        [np.cumsum(labels[::-1])[::-1], [0]]
    )
    cuts = np.concatenate([[ranked[0] - 1], (ranked[1:] + ranked[:-1]) / 2, [ranked[-1] + 1]])
    # a cut between equal scores is not a threshold
    possible = np.concatenate([[True], ranked[1:] > ranked[:-1], [True]])
    best = np.flatnonzero(possible & (correct == correct[possible].max()))
    return float(cuts[best[len(best) // 2]])


@dataclass(frozen=True)
class FoldAccuracy:
    """k-fold verification accuracy: mean and standard deviation over folds, thresholds, decisions.

    Attributes:
        mean, std: of the accuracy over folds, 0 to 1.
        thresholds: one per fold.
        correct: bool (P,), whether each pair is decided correctly at its fold's threshold.
    """

    mean: float
    std: float
    thresholds: tuple[float, ...]
    correct: npt.NDArray[np.bool_]


def fold_accuracy(
    scores: Scores, same: npt.NDArray[np.bool_], folds: npt.NDArray[np.int64]
) -> FoldAccuracy:
    """Accuracy on each fold at the threshold chosen on all other folds (LFW's View 2, Huang 2007).

    Args:
        scores: (P,).
        same: (P,) True for genuine pairs.
        folds: (P,) fold numbers.

    Raises:
        EvaluationError: there are fewer than two folds, or the pairs outside a fold are of one kind.
    """
    unique = np.unique(folds)
    if len(unique) < 2:
        raise EvaluationError("accuracy over folds needs at least two folds")
    correct = np.zeros(len(scores), bool)
    thresholds, accuracies = [], []
    for fold in unique:
        test = folds == fold
        if same[~test].all() or not same[~test].any():
            raise EvaluationError(f"the pairs outside fold {fold} are all of one class")
        threshold = best_threshold(scores[~test], same[~test])
        correct[test] = (scores[test] >= threshold) == same[test]
        thresholds.append(threshold)
        accuracies.append(correct[test].mean())
    return FoldAccuracy(
        float(np.mean(accuracies)), float(np.std(accuracies)), tuple(thresholds), correct
    )


def equal_error_rate(genuine: Scores, impostor: Scores) -> float:
    """The error rate where FAR and FRR cross, interpolated linearly between thresholds."""
    far, frr = _rates(genuine, impostor)
    difference = far - frr
    after = int(np.argmax(difference <= 0))
    if after == 0:
        return float((far[0] + frr[0]) / 2)
    before = after - 1
    share = difference[before] / (difference[before] - difference[after])
    return float(far[before] + share * (far[after] - far[before]))


def area_under_roc(genuine: Scores, impostor: Scores) -> float:
    """AUC: the probability that a genuine score exceeds an impostor score, ties counting half."""
    ranked = np.sort(impostor)
    below = np.searchsorted(ranked, genuine, side="left")
    upto = np.searchsorted(ranked, genuine, side="right")
    return float((below + upto).mean() / 2 / len(impostor))


def rates_at(genuine: Scores, impostor: Scores, threshold: float) -> tuple[float, float]:
    """(FAR, FRR) at a given threshold."""
    return float((impostor >= threshold).mean()), float((genuine < threshold).mean())


def roc_curve(
    genuine: Scores, impostor: Scores, total: int | None = None, points: int = 200
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(FAR, TAR), float64 (points,) each, at logarithmically spaced FARs, for a figure."""
    count = total or len(impostor)
    ranked = np.sort(impostor)[::-1]
    sorted_genuine = np.sort(genuine)
    high = min((len(ranked) - 1) / count, 1.0)
    fars = np.logspace(np.log10(1 / count), np.log10(max(high, 1 / count)), points)
    edges = ranked[np.minimum((fars * count).astype(np.int64), len(ranked) - 1)]
    accepted = len(genuine) - np.searchsorted(sorted_genuine, edges, side="right")
    return fars, accepted / len(genuine)


def _rates(
    genuine: Scores, impostor: Scores
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """FAR and FRR at every distinct score, ascending, and just above the largest."""
    thresholds = np.unique(np.concatenate([genuine, impostor]))
    thresholds = np.append(thresholds, np.nextafter(thresholds[-1], np.float32(np.inf)))
    far = 1 - np.searchsorted(np.sort(impostor), thresholds, side="left") / len(impostor)
    frr = np.searchsorted(np.sort(genuine), thresholds, side="left") / len(genuine)
    return far, frr
