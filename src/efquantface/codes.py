"""Embeddings as int8 codes: one scale per vector, a quarter of the bytes.

Each vector is quantized alone. So there is no calibration, every shard and client gets the same codes,
and galleries made at different times fit together. A cosine needs the codes only, since scales cancel
out.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from efquantface.errors import EvaluationError

Embedding = Literal["float32", "int8"]
EMBEDDINGS: tuple[str, ...] = get_args(Embedding)
QMAX = 127  # -128 is not used, so that the codes of -x are those of x, negated

_LARGEST = np.nextafter(np.float32(np.finfo(np.float32).max / QMAX), np.float32(0))


def encode(
    rows: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Quantize each row symmetrically, with a scale from its largest absolute value.

    ``scale = max(abs(row)) / 127`` as float32. ``code = row / scale``, rounded to the nearest, halves to
    even. The error of an entry is at most half a scale.

    Args:
        rows: finite float32 (N,D), of any length.

    Returns:
        int8 codes (N,D) from -127 to 127, and float32 scales (N,). A row of zeros has scale 0.

    Raises:
        EvaluationError: a value is not finite.

    Example:
        >>> codes, scales = encode(np.array([[12.7, -6.4, 0.1]], np.float32))
        >>> codes.tolist(), round(float(scales[0]), 6)
        ([[127, -64, 1]], 0.1)
    """
    values = np.asarray(
        rows, np.float64
    )  # quotients of float32 are exact enough to be rounded once
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise EvaluationError(f"embedding {int(bad[0])} is not finite")
    largest = np.abs(values).max(axis=1, initial=0.0)
    scales = np.minimum(largest / QMAX, _LARGEST).astype(np.float32)
    steps = scales.astype(np.float64)[:, None]
    quotients = np.divide(values, steps, out=np.zeros_like(values), where=steps > 0)
    return np.clip(np.rint(quotients), -QMAX, QMAX).astype(np.int8), scales


def decode(codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The values float32 (N,D) of codes int8 (N,D) and scales float32 (N,)."""
    return codes.astype(np.float32) * np.asarray(scales, np.float32)[:, None]


def rounded(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows (N,D) quantized to int8 codes and back to float32.

    Raises:
        EvaluationError: a value is not finite.
    """
    return decode(*encode(rows))


def code_cosines(a: npt.NDArray[np.int8], b: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """Cosines float32 (M,N) of vectors with codes int8 (M,D) and (N,D), from sums of integers.

    Raises:
        EvaluationError: a row of codes is all zeros.

    Example:
        >>> codes = encode(np.array([[3, 4], [-4, 3]], np.float32))[0]
        >>> code_cosines(codes, codes).round(3).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    # products of whole numbers in float64: exact up to 2^53, and BLAS is fast
    first, second = (np.asarray(x, np.float64) for x in (a, b))
    lengths = [np.sqrt((x * x).sum(axis=1)) for x in (first, second)]
    for length in lengths:
        if not length.all():
            zero = int(np.flatnonzero(length == 0)[0])
            raise EvaluationError(f"embedding {zero} has length zero")
    return np.asarray((first @ second.T) / np.outer(*lengths), np.float32)
