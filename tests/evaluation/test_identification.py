"""Searches in a gallery against loops and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from efquantface.errors import EvaluationError
from efquantface.evaluation.identification import search

RNG = np.random.default_rng(5)


def test_search_by_hand() -> None:
    gallery = np.eye(3, dtype=np.float32)
    probes = np.array([[1, 0.2, 0], [0.9, 1, 0], [0, 0.3, 1], [1, 1, 0.1]], np.float32)
    found = search(gallery, np.array([10, 20, 30]), probes, np.array([10, 10, 30, 99]))
    assert found.rank.tolist() == [1, 2, 1, 0]
    assert found.rank_rate(1) == pytest.approx(2 / 3)
    assert found.rank_rate(2) == 1
    stranger = 1 / np.sqrt(2.01)
    assert found.threshold(0.1) == pytest.approx(stranger, abs=1e-6)
    own = [1 / np.sqrt(1.04), 0.9 / np.sqrt(1.81), 1 / np.sqrt(1.09)]
    assert found.tpir(found.threshold(0.1)) == pytest.approx(np.mean(np.array(own) > stranger))


def test_search_takes_the_best_template_of_an_identity() -> None:
    gallery = RNG.normal(size=(40, 8)).astype(np.float32)
    subjects = RNG.integers(0, 12, 40)
    probes, who = RNG.normal(size=(60, 8)).astype(np.float32), RNG.integers(0, 15, 60)
    found = search(gallery, subjects, probes, who)
    g = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    p = probes / np.linalg.norm(probes, axis=1, keepdims=True)
    for i in range(60):
        best = {s: float((g[subjects == s] @ p[i]).max()) for s in set(subjects.tolist())}
        others = [v for s, v in best.items() if s != who[i]]
        assert found.other[i] == pytest.approx(max(others), abs=1e-6)
        if who[i] in best:
            assert found.mate[i] == pytest.approx(best[who[i]], abs=1e-6)
            assert found.rank[i] == 1 + sum(v > best[who[i]] for v in others)
        else:
            assert found.rank[i] == 0
    with pytest.raises(EvaluationError, match="no probe's identity"):
        search(gallery, subjects, probes, who + 100)
    with pytest.raises(EvaluationError, match="probes: embedding 0 is not finite"):
        search(gallery, subjects, probes * np.nan, who)
