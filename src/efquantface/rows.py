"""Rows of embeddings: scaling to length 1, and the mean cosine of two sets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from efquantface.errors import EvaluationError

_SHORTEST = 1e-12  # a shorter row has length zero


def unit(
    rows: npt.NDArray[np.float32], what: str = "embeddings", *, strict: bool = True
) -> npt.NDArray[np.float32]:
    """Rows (N,D) scaled to length 1, float32.

    Args:
        rows: float32 (N,D), of any length.
        what: names them in the error.
        strict: whether a row that is not finite or has length zero is an error. If not, zeros stay
        zeros.

    Raises:
        EvaluationError: with ``strict``, a row is not finite or has length zero.
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
    """Mean cosine (-1 to 1) of the rows of two arrays (N,D), pair by pair; rows may have any length."""
    return float(cosines(a, b).mean())


def cosines(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Cosines (N,) of the rows of two arrays (N,D), pair by pair; rows may have any length."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: npt.NDArray[np.floating] = (a * b).sum(axis=1) / np.maximum(lengths, _SHORTEST)
    return found
