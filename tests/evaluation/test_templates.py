"""Pooling crops to templates against loops."""

from __future__ import annotations

import numpy as np
import pytest

from efquantface.errors import EvaluationError, RecipeError
from efquantface.evaluation.templates import TemplateFlags, TemplatePool
from pooling import pooled_by_loops

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("flags", ["N0D0F0", "N1D0F0", "N0D1F0", "N1D1F1"])
def test_pooling_against_loops(flags: str) -> None:
    count = 200
    rows = (RNG.normal(size=(count, 12)) * RNG.uniform(1, 9, (count, 1))).astype(np.float32)
    templates, media = RNG.integers(0, 30, count) * 7, RNG.integers(0, 3, count)
    weights = RNG.uniform(0.3, 1, count).astype(np.float32)
    pool = TemplatePool(templates, media, weights, TemplateFlags.parse(flags))
    for start in range(0, count, 37):
        pool.add(rows[start : start + 37])
    expected = pooled_by_loops(rows, templates, media, weights, flags)
    np.testing.assert_allclose(pool.templates(), expected, atol=1e-6)


def test_pool_refuses_what_is_not_whole() -> None:
    pool = TemplatePool(np.array([1, 1]), np.array([1, 2]), None, TemplateFlags())
    with pytest.raises(EvaluationError, match="crops from 0 on: embedding 1 is not finite"):
        pool.add(np.array([[1, 2], [np.nan, 1]], np.float32))
    with pytest.raises(EvaluationError, match="length zero"):
        pool.add(np.zeros((1, 2), np.float32))
    pool.add(np.ones((1, 2), np.float32))
    with pytest.raises(EvaluationError, match="1 of 2 crops"):
        pool.templates()
    for text in ("N1D1", "X1D1F1", "N2D1F1"):
        with pytest.raises(RecipeError, match="N1D1F1"):
            TemplateFlags.parse(text)
