"""Rows of length 1, against NumPy and SciPy; rows without a direction are never scored in silence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cosine

from efquantface.errors import EvaluationError
from efquantface.rows import mean_cosine, unit

RNG = np.random.default_rng(0)


def test_rows_point_where_they_did() -> None:
    rows = RNG.normal(size=(5, 8)).astype(np.float32)
    found = unit(rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found * np.linalg.norm(rows, axis=1)[:, None], rows, rtol=1e-5)


def test_bad_rows_are_never_scored() -> None:
    bad = RNG.normal(size=(4, 8)).astype(np.float32)
    bad[2, 0] = np.nan
    with pytest.raises(EvaluationError, match="probes: embedding 2 is not finite"):
        unit(bad, "probes")
    bad[2] = 0
    with pytest.raises(EvaluationError, match="embedding 2 has length zero"):
        unit(bad)
    assert not unit(bad, strict=False)[2].any()


def test_mean_cosine_of_any_length() -> None:
    a, b = RNG.normal(size=(2, 6, 8)) * 7
    expected = np.mean([1 - cosine(x, y) for x, y in zip(a, b, strict=True)])
    assert mean_cosine(a, b) == pytest.approx(expected)
