"""arcface_torch's numbers against its procedure, written anew."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import KFold

from conftest import make_faces
from efquantface.evaluation.arcface import grid_accuracy
from efquantface.evaluation.items import Embedded, Options
from efquantface.evaluation.run import score_item
from efquantface.evaluation.sets import EvalSet, Pairs

RNG = np.random.default_rng(5)


def test_grid_accuracy_against_arcface_torchs_procedure() -> None:
    """Written anew from its description: KFold, distances below thresholds, first best of the grid."""
    people = RNG.normal(size=(400, 16))
    a = (people + 0.9 * RNG.normal(size=people.shape)).astype(np.float32)
    b = people + 0.9 * RNG.normal(size=people.shape)
    same = RNG.random(400) < 0.5
    b = np.where(same[:, None], b, RNG.normal(size=people.shape)).astype(np.float32)
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    distance = ((x - y) ** 2).sum(1)
    thresholds = np.arange(0, 4, 0.01)
    accuracies = []
    for train, test in KFold(10, shuffle=False).split(distance):
        hits = [((distance[train] < t) == same[train]).mean() for t in thresholds]
        best = thresholds[int(np.argmax(hits))]
        accuracies.append(((distance[test] < best) == same[test]).mean())
    mean, spread = grid_accuracy(a, b, same)
    assert mean == pytest.approx(np.mean(accuracies), abs=1e-12)
    assert spread == pytest.approx(np.std(accuracies), abs=1e-12)
    assert 0.6 < mean < 1


def test_xnorm_counts_both_sides_of_every_pair() -> None:
    faces = make_faces(6, 4)
    index = np.arange(20)
    pairs = Pairs(index, (index + 1) % 24, index % 4 != 3, index // 2)
    rows = RNG.normal(size=(24, 8)).astype(np.float32)
    lengths = np.arange(24, dtype=np.float32)
    item = EvalSet("x", faces, pairs, False)
    (result,) = score_item(item, [Embedded(rows, lengths)], Options(arcface=True))
    expected = np.mean([lengths[pairs.a], lengths[pairs.b]])
    assert result.metric("length, arcface_torch XNorm").teacher == pytest.approx(expected)
    assert "flip on" in result.flags
