"""Known faults of a set are found, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from efquantface.data.checking import Impostors, check_people, shared_people
from efquantface.data.faces import FaceSet
from efquantface.data.strangers import centred, strangers
from efquantface.evaluation.shared import people_in_both
from people import people

RNG = np.random.default_rng(3)


def test_faults_are_found() -> None:
    rows, who = people(60, 6)
    who[rows.shape[0] - 6 :] = 60  # nobody's fault: the last person under another number
    who[6:12] = 0  # merged: folder 0 holds two people
    split = np.flatnonzero(who == 20)[3:]
    who[split] = 61  # split: person 20 in two folders
    rows[123] = RNG.normal(size=128) / np.sqrt(128)  # a wrong face
    rows[201] = rows[200] + 1e-4
    found = check_people(rows, who)
    assert found.split == [(20, 61)]
    assert found.merged == [0]
    assert 123 in found.outliers
    rest = set(found.outliers) - {123}
    assert rest in (set(range(6)), set(range(6, 12)))  # one of the two people of folder 0
    assert found.duplicates == [(201, 200)]


def corner(rows: np.ndarray) -> np.ndarray:
    """The same people as a teacher puts them that finds strangers alike (cosines of about 0.85)."""
    moved = rows + 2.4 * np.random.default_rng(9).normal(size=rows.shape[1]) / np.sqrt(
        rows.shape[1]
    )
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


def test_faults_are_found_where_strangers_are_alike() -> None:
    rows, who = people(60, 6)
    rows[123] = people(1, 1, seed=5)[0]  # a wrong face
    rows[201] = rows[200] + 1e-4
    moved = corner(rows)
    assert strangers(moved) == pytest.approx(0.85, abs=0.02)
    assert strangers(rows) == 0
    found = check_people(moved, who)
    assert (found.outliers, found.duplicates) == ([123], [(201, 200)])


def test_hard_faces_are_not_taken_for_strangers() -> None:
    """People whose images vary: stricter than the middle, the threshold would list many of them."""
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(40, 1, 128))
    noise = rng.uniform(0.5, 1.6, (40, 10, 1))
    rows = (centres + noise * rng.normal(size=(40, 10, 128))).reshape(-1, 128)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    who = np.repeat(np.arange(40), 10)
    wrong = rng.choice(400, 8, replace=False)
    rows[wrong] = rows[(wrong + 55) % 400]
    found = check_people(rows, who)
    assert found.threshold < Impostors.of(rows, who).threshold(1_000_000)
    assert set(wrong) <= set(found.outliers)
    assert len(found.outliers) <= 12


def test_centred_moves_other_sets_by_the_same_mean() -> None:
    rows, _ = people(30, 4)
    moved = corner(rows)
    mine, theirs = centred(moved[:100], moved[100:])
    assert abs(float(np.median(mine @ theirs.T))) < 0.1
    np.testing.assert_allclose(np.linalg.norm(theirs, axis=1), 1, rtol=1e-5)
    assert centred(rows)[0] is rows


def test_threshold_is_not_moved_by_mislabelled_people() -> None:
    rows, who = people(200, 5)
    clean = Impostors.of(rows, who).threshold(1_000_000)
    dirty = Impostors.of(rows, np.arange(len(rows))).threshold(1_000_000)  # each image a person
    assert dirty == pytest.approx(clean, abs=0.01)
    different = (rows @ rows.T)[who[:, None] != who[None]]
    assert (different > clean).mean() < 1e-4


def test_shared_people() -> None:
    rows, who = people(40, 4)
    others, names = people(30, 4, seed=1)
    others[8:12] = rows[20:24] + 0.02 * RNG.normal(size=(4, 128))
    found = shared_people(rows, who, others, names, Impostors.of(rows, who))
    assert found == [(5, 2)]
    first = FaceSet(np.empty((160, 1, 1, 3), np.uint8), [""] * 160, who, [""] * 40, "a")
    second = FaceSet(np.empty((120, 1, 1, 3), np.uint8), [""] * 120, names, [""] * 30, "b")
    assert people_in_both(first, rows, second, others) == [(5, 2)]
