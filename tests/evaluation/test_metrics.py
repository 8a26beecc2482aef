"""Metrics against scikit-learn, brute force, and values worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score, roc_curve

from efquantface.errors import EvaluationError
from efquantface.evaluation.metrics import (
    area_under_roc,
    best_threshold,
    equal_error_rate,
    fold_accuracy,
    rates_at,
    supported_fars,
    tar_at_far,
)

RNG = np.random.default_rng(0)
GENUINE = RNG.normal(0.6, 0.2, 400).astype(np.float32)
IMPOSTOR = RNG.normal(0.1, 0.2, 3000).astype(np.float32)
SCORES = np.concatenate([GENUINE, IMPOSTOR])
LABELS = np.concatenate([np.ones(400), np.zeros(3000)])


def test_auc_and_eer_against_sklearn() -> None:
    assert area_under_roc(GENUINE, IMPOSTOR) == pytest.approx(
        roc_auc_score(LABELS, SCORES), abs=1e-9
    )
    fpr, tpr, _ = roc_curve(LABELS, SCORES, drop_intermediate=False)
    crossing = np.argmin(np.abs(fpr - (1 - tpr)))
    assert equal_error_rate(GENUINE, IMPOSTOR) == pytest.approx(fpr[crossing], abs=2e-3)
    assert area_under_roc(np.ones(3, np.float32), np.ones(2, np.float32)) == 0.5


@pytest.mark.parametrize("far", [0.1, 0.01, 0.001, 0.0123])
def test_tar_at_far_against_brute_force(far: float) -> None:
    point = tar_at_far(GENUINE, IMPOSTOR, far)
    assert (IMPOSTOR >= point.threshold).mean() <= far
    candidates = np.unique(SCORES)
    best = max((GENUINE >= t).mean() for t in candidates if (IMPOSTOR >= t).mean() <= far)
    assert point.tar == pytest.approx(best)
    fpr, tpr, _ = roc_curve(LABELS, SCORES, drop_intermediate=False)
    assert point.tar == pytest.approx(tpr[fpr <= far].max())


# A grid of few values, so that ties are frequent; float32 holds each exactly.
FEW = st.integers(-16, 16).map(lambda n: n / 16)


@given(
    genuine=hnp.arrays(np.float32, st.integers(1, 30), elements=FEW),
    impostor=hnp.arrays(np.float32, st.integers(1, 60), elements=FEW),
    far=st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.25, 1 / 3, 0.5, 0.9]),
    kept=st.integers(0, 59),
)
def test_tar_at_far_is_the_best_of_all_thresholds(
    genuine: np.ndarray, impostor: np.ndarray, far: float, kept: int
) -> None:
    """Every threshold tried in exact fractions, with all impostor scores or the largest of them."""
    allowed = Fraction(far).limit_denominator(1000) * len(impostor)
    every = [*sorted({*genuine.tolist(), *impostor.tolist()}), 2.0]
    best = max(
        sum(g >= t for g in genuine.tolist())
        for t in every
        if sum(i >= t for i in impostor.tolist()) <= allowed
    )
    point = tar_at_far(genuine, impostor, far)
    assert point.tar == pytest.approx(best / len(genuine))
    assert (genuine >= point.threshold).sum() == best
    assert (impostor >= point.threshold).sum() <= allowed
    largest = np.sort(impostor)[::-1][: kept + 1]
    if len(largest) > allowed:
        assert tar_at_far(genuine, largest, far, len(impostor)) == point
    elif len(largest) < len(impostor):
        with pytest.raises(EvaluationError, match="impostor scores"):
            tar_at_far(genuine, largest, far, len(impostor))


def test_tar_with_ties_by_hand() -> None:
    impostor = np.array([0.9, 0.5, 0.5, 0.5], np.float32)
    genuine = np.array([0.95, 0.6, 0.5, 0.1], np.float32)
    # one of four may be accepted: the threshold lies just above 0.5, and 0.5 itself is rejected
    assert tar_at_far(genuine, impostor, 0.25).tar == 0.5
    assert tar_at_far(genuine, impostor, 0.5).tar == 0.5
    assert tar_at_far(genuine, impostor, 0.01).tar == 0.25
    with pytest.raises(EvaluationError):
        tar_at_far(genuine, np.empty(0, np.float32), 0.1)


def test_best_threshold_against_brute_force() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scores = rng.integers(0, 12, 40).astype(np.float32) / 12
        same = rng.random(40) < scores
        threshold = best_threshold(scores, same)
        trials = np.unique(np.concatenate([scores - 0.01, scores + 0.01]))
        best = max(((scores >= t) == same).sum() for t in trials)
        assert ((scores >= threshold) == same).sum() == best


def test_fold_accuracy_by_hand() -> None:
    scores = np.array([0.9, 0.1, 0.8, 0.7, 0.4, 0.3], np.float32)
    same = np.array([True, False, True, False, True, False])
    folds = np.array([0, 0, 1, 1, 2, 2])
    result = fold_accuracy(scores, same, folds)
    assert result.correct.tolist()[:2] == [True, True]
    assert result.mean == pytest.approx(
        np.mean([result.correct[folds == f].mean() for f in range(3)])
    )
    with pytest.raises(EvaluationError, match="two folds"):
        fold_accuracy(scores, same, np.zeros(6, int))
    with pytest.raises(EvaluationError, match="one class"):
        fold_accuracy(scores[:4], np.array([True, True, False, False]), np.array([0, 0, 1, 1]))


def test_supported_fars() -> None:
    assert supported_fars(3000) == [1e-1, 1e-2, 1e-3]
    assert supported_fars(29_600_000)[-1] == 1e-6
    assert supported_fars(10) == []


PAIRS = [
    "2\t1",
    "person00\t1\t2",
    "person00\t1\tperson01\t1",
    "person02\t1\t3",
    "person02\t2\tperson03\t4",
]


def test_rates_at_a_deployed_threshold() -> None:
    far, frr = rates_at(
        np.array([0.3, 0.5, 0.9], np.float32), np.array([0.1, 0.5, 0.2, 0.3], np.float32), 0.5
    )
    assert (far, frr) == (0.25, pytest.approx(1 / 3))
