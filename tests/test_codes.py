"""int8 codes of embeddings: against exact fractions, entry by entry."""

from __future__ import annotations

import doctest
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from efquantface import codes as module
from efquantface.codes import code_cosines, decode, encode, rounded
from efquantface.errors import EvaluationError
from people import people

FLOATS = st.floats(-(2.0**60), 2.0**60, width=32)
ROWS = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=FLOATS)


def exact(row: np.ndarray) -> tuple[list[int], np.float32]:
    """Codes by fractions: round() of a Fraction is to the nearest, halves to even."""
    scale = np.float32(max(abs(float(v)) for v in row) / 127)
    if scale == 0:
        return [0] * len(row), scale
    step = Fraction(float(scale))
    return [max(-127, min(127, round(Fraction(float(v)) / step))) for v in row], scale


@given(ROWS)
def test_codes_are_those_of_exact_arithmetic(rows: np.ndarray) -> None:
    codes, scales = encode(rows)
    assert codes.dtype == np.int8
    assert scales.dtype == np.float32
    for row, code, scale in zip(rows, codes, scales, strict=True):
        assert (code.tolist(), scale) == exact(row)


@given(ROWS)
def test_an_entry_is_off_by_half_a_scale_at_most(rows: np.ndarray) -> None:
    codes, scales = encode(rows)
    back = codes.astype(np.float64) * scales.astype(np.float64)[:, None]
    room = 0.5 * scales.astype(np.float64)[:, None] * (1 + 1e-5)
    assert (np.abs(back - rows) <= room + 1e-42).all()
    np.testing.assert_array_equal(decode(codes, scales), back.astype(np.float32))


@given(ROWS)
def test_each_vector_is_quantized_alone_and_signs_are_alike(rows: np.ndarray) -> None:
    codes, scales = encode(rows)
    for number, row in enumerate(rows):
        one, scale = encode(row[None])
        np.testing.assert_array_equal(one[0], codes[number])
        assert scale[0] == scales[number]
    np.testing.assert_array_equal(encode(-rows)[0], -codes)


def test_halves_go_to_even() -> None:
    codes, scales = encode(np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5]], np.float32))
    assert scales.tolist() == [1.0]
    assert codes.tolist() == [[127, 0, 2, 2, 0, -2]]


def test_ends_of_the_range() -> None:
    tiny, huge = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    codes, scales = encode(np.array([[0, 0], [tiny, -tiny], [huge, -huge]], np.float32))
    assert codes.tolist() == [[0, 0], [0, 0], [127, -127]]
    assert scales[0] == scales[1] == 0
    assert np.isfinite(decode(codes, scales)).all()
    assert encode(np.empty((0, 4), np.float32))[0].shape == (0, 4)
    for bad in (np.nan, np.inf):
        with pytest.raises(EvaluationError, match="embedding 1 is not finite"):
            encode(np.array([[1, 2], [3, bad]], np.float32))


def test_cosines_of_codes_are_those_of_whole_numbers() -> None:
    rows, _ = people(6, 3, size=64)
    codes, scales = encode(rows)
    found = code_cosines(codes[:4], codes)
    for i in range(4):
        for j in range(len(codes)):
            a, b = (list(map(int, codes[k])) for k in (i, j))
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            wanted = dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5
            assert found[i, j] == pytest.approx(wanted, abs=1e-7)
    values = decode(codes, scales)  # the scales cancel out
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    np.testing.assert_allclose(found, values[:4] @ values.T, atol=1e-6)
    with pytest.raises(EvaluationError, match="embedding 1 has length zero"):
        code_cosines(codes[:1], np.concatenate([codes[:1], 0 * codes[:1]]))


def test_directions_are_kept() -> None:
    rows, _ = people(20, 2, size=512)
    cosines = (rows * rounded(rows)).sum(axis=1) / np.linalg.norm(rounded(rows), axis=1)
    assert cosines.min() > 0.9999
    np.testing.assert_array_equal(rounded(1e-20 * rows) > 0, rounded(rows) > 0)


def test_examples() -> None:
    assert doctest.testmod(module).failed == 0
