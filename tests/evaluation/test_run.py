"""What a student is said to lose, and galleries across models, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import make_faces
from efquantface.evaluation.run import embedding_lengths, evaluate_set
from efquantface.evaluation.sets import EvalSet, Pairs

RNG = np.random.default_rng(5)


def test_galleries_across_models_by_hand() -> None:
    faces = make_faces(6, 4)
    index = np.arange(24)
    pairs = Pairs(
        np.concatenate([index[:-1], index[:20], index[:16]]),
        np.concatenate([index[1:], index[4:], index[8:]]),
        np.concatenate([index[:-1] // 4 == index[1:] // 4, np.zeros(36, bool)]),
        np.arange(59) % 2,
    )
    base = np.repeat(RNG.normal(size=(6, 8)), 4, axis=0)
    teacher = (base + 0.3 * RNG.normal(size=(24, 8))).astype(np.float32)
    student = (teacher + 0.2 * RNG.normal(size=(24, 8))).astype(np.float32)
    result = evaluate_set(EvalSet("x", faces, pairs, False), teacher, student)[0]
    t, s = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (teacher, student))
    own = (s[pairs.a] * s[pairs.b]).sum(1)
    cut = np.sort(own[~pairs.same])[::-1][int(0.1 * (~pairs.same).sum())]
    mixed = (s[pairs.a] * t[pairs.b]).sum(1)
    metric = result.metric("student's gallery, teacher's probes")
    assert metric.teacher == pytest.approx((mixed[pairs.same] > cut).mean())
    assert metric.student == pytest.approx((own[pairs.same] > cut).mean())
    assert result.metric("threshold at FAR=0.1").student == pytest.approx(cut, abs=1e-5)
    own = (t[pairs.a] * t[pairs.b]).sum(1)
    cut = np.sort(own[~pairs.same])[::-1][int(0.1 * (~pairs.same).sum())]
    mixed = (t[pairs.a] * s[pairs.b]).sum(1)
    (found,) = result.mixed
    assert found.asked == 0.1
    assert found.teacher == pytest.approx((own[pairs.same] > cut).mean())
    assert found.tar == pytest.approx((mixed[pairs.same] > cut).mean())
    assert found.far == pytest.approx((mixed[~pairs.same] > cut).mean())


def test_a_student_equal_to_its_teacher_loses_nothing() -> None:
    faces = make_faces()
    embeddings = RNG.normal(size=(12, 1, 8)) + 0.2 * RNG.normal(size=(12, 4, 8))
    teacher = embeddings.reshape(-1, 8).astype(np.float32)
    result = evaluate_set(EvalSet("x", faces, None, True), teacher, 3 * teacher, threshold=0.5)[0]
    for metric in result.metrics:
        if metric.loss is not None:
            assert metric.loss == 0
            assert metric.loss_interval in (None, (0.0, 0.0))
    assert result.metric("cosine to teacher").student == pytest.approx(1, abs=1e-6)
    gallery = result.metric("teacher's gallery, student's probes")
    assert gallery.teacher == gallery.student
    lengths = embedding_lengths(teacher, 3 * teacher)
    assert lengths["ratio"] == pytest.approx(3, rel=1e-5)
    assert lengths["rank_correlation"] == pytest.approx(1)


def test_rank_correlation_of_lengths() -> None:
    """Lengths 1, 2, 3, 4 against 1, 3, 2, 4: 1 - 6 * 2 / (4 * 15); ties share their mean rank."""
    direction = np.array([[0.6, 0.8]], np.float32)

    def rows(*lengths: float) -> np.ndarray:
        return np.array(lengths, np.float32)[:, None] * direction

    found = embedding_lengths(rows(1, 2, 3, 4), rows(1, 3, 2, 4))
    assert found["rank_correlation"] == pytest.approx(0.8)
    tied = embedding_lengths(rows(1, 2, 2, 3), rows(1, 2, 2, 3))
    assert tied["rank_correlation"] == pytest.approx(1)
    assert embedding_lengths(rows(1, 1, 1), rows(1, 2, 3))["rank_correlation"] == 1.0
