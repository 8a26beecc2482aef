"""Rows of embeddings: scaled to length 1, and how alike two sets of them are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from efquantface.errors import EvaluationError

_SHORTEST = 1e-12


def unit(
    rows: npt.NDArray[np.float32], what: str = "embeddings", *, strict: bool = True
) -> npt.NDArray[np.float32]:
    """Rows (N,D) scaled to length 1, float32.

    Args:
        rows: any length.
        what: they are, for the error.
        strict: a row without a direction is an error; otherwise zeros stay zeros.

    Raises:
        EvaluationError: a row is not finite or has no length; it is never scored in silence.
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if strict:
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise EvaluationError(f"{what}: embedding {int(bad[0])} is not finite")
        zero = np.flatnonzero(lengths < _SHORTEST)
        if len(zero):
            raise EvaluationError(f"{what}: embedding {int(zero[0])} has length zero")
    return np.asarray(rows / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def mean_cosine(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> float:
    """Mean cosine of the rows of two arrays (N,D) of any length; -1 to 1."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, _SHORTEST)).mean())
