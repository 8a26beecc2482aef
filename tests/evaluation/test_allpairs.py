"""All pairs of a set against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from efquantface.evaluation.allpairs import score_all_pairs
from efquantface.evaluation.metrics import (
    tar_at_far,
)

RNG = np.random.default_rng(0)


def test_all_pairs_against_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    from efquantface.evaluation import allpairs

    monkeypatch.setattr(allpairs, "_BLOCK", 37)
    embeddings = RNG.normal(size=(200, 6)).astype(np.float32)
    identities = np.sort(RNG.integers(0, 40, 200))
    found = score_all_pairs(embeddings, identities)
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    i, j = np.triu_indices(200, 1)
    scores = (rows[i] * rows[j]).sum(1)
    same = identities[i] == identities[j]
    np.testing.assert_allclose(np.sort(found.genuine), np.sort(scores[same]), atol=1e-6)
    assert found.impostors == (~same).sum() == found.impostor_histogram.sum()
    top = np.sort(scores[~same])[::-1][: len(found.top_impostors)]
    np.testing.assert_allclose(np.sort(found.top_impostors)[::-1], top, atol=1e-6)
    mine = tar_at_far(found.genuine, found.top_impostors, 0.005, found.impostors)
    assert mine.tar == pytest.approx(tar_at_far(scores[same], scores[~same], 0.005).tar)
    assert len(found.genuine_identity) == same.sum()
