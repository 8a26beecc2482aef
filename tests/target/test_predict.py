"""Predictions against students whose errors are known."""

from __future__ import annotations

import numpy as np
import pytest

from efquantface.errors import EvaluationError
from efquantface.target.predict import Cause, cause, distance, nearer, strictest_far, tar, trained

PEOPLE, EACH, WIDTH = 60, 6, 24


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(teacher (N,D), a direction to err in (N,D), identities (N,)): people apart, faces near."""
    rng = np.random.default_rng(0)
    identities = np.repeat(np.arange(PEOPLE), EACH)
    centres = rng.normal(size=(PEOPLE, WIDTH))[identities]
    teacher = (centres + 0.6 * rng.normal(size=centres.shape)).astype(np.float32)
    return teacher, rng.normal(size=teacher.shape).astype(np.float32), identities


def test_errors_are_made_smaller_in_their_own_direction(
    rows: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    teacher, error, _ = rows
    student = teacher + error
    found = nearer(teacher, student, 0.05)
    assert distance(teacher, found) == pytest.approx(0.05, abs=1e-4)
    unit = teacher / np.linalg.norm(teacher, axis=1, keepdims=True)
    wanted = student / np.linalg.norm(student, axis=1, keepdims=True) - unit
    moved = found - unit
    # in the plane of both embeddings, towards the student
    cosine = (
        (moved * wanted).sum(1) / np.linalg.norm(moved, axis=1) / np.linalg.norm(wanted, axis=1)
    )
    assert cosine.min() > 0.5


def test_a_student_that_is_near_enough_stays(
    rows: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    teacher, error, _ = rows
    student = teacher + 0.01 * error
    found = nearer(teacher, student, 0.5)
    assert distance(student, found) < 1e-6


def test_tar_is_that_of_a_plain_count(
    rows: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    teacher, error, identities = rows
    student, far = teacher + error, 1e-3
    tars = []
    for vectors in (teacher, student):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = unit @ unit.T
        upper = np.triu(np.ones_like(scores, dtype=bool), 1)
        same = identities[:, None] == identities
        impostors = np.sort(scores[upper & ~same])[::-1]
        edge = impostors[int(far * len(impostors))]
        tars.append(100 * float((scores[upper & same] > edge).mean()))
    assert tar(teacher, identities, far) == pytest.approx(tars[0], abs=1e-9)
    assert tar(student, identities, far) == pytest.approx(tars[1], abs=1e-9)
    assert tars[0] - tars[1] > 1


def test_too_few_pairs_for_a_far_are_said(
    rows: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    teacher, _, identities = rows
    with pytest.raises(EvaluationError, match="needs 3,000,000 impostor pairs"):
        tar(teacher, identities, 1e-6)


def test_training_takes_its_share_and_never_adds() -> None:
    for why in Cause:
        assert trained(0.1, 12, why) < trained(0.1, 4, why) < trained(0.1, 1, why) <= 0.1
        assert trained(0.1, 0, why) == 0.1


def test_few_bits_leave_more_to_training() -> None:
    assert [cause(bits, False) for bits in (8, 6, 4)] == [
        Cause.ROUNDED,
        Cause.ROUNDED,
        Cause.FEW_BITS,
    ]
    assert {cause(bits, True) for bits in (8, 4)} == {Cause.PRUNED}
    assert trained(0.1, 2, Cause.FEW_BITS) < trained(0.1, 2, Cause.ROUNDED)


def test_the_strictest_far_is_the_one_with_three_false_accepts() -> None:
    assert strictest_far(np.arange(9)) == 0.1  # 36 pairs
    assert strictest_far(np.arange(80)) == 1e-3  # 3,160
    assert strictest_far(np.repeat(np.arange(300), 2)) == 1e-4
    with pytest.raises(EvaluationError, match="too few"):
        strictest_far(np.zeros(9, np.int64))
