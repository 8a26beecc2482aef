"""Choosing and judging images by embeddings that are made to have known faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import make_faces
from efquantface import compress
from efquantface.contract import FaceContract
from efquantface.data.checking import Impostors, check_people, shared_people
from efquantface.data.choosing import choose
from efquantface.data.faces import FaceSet, load_faces
from efquantface.data.images import write_image
from efquantface.data.listing import full_name, read_excluded
from efquantface.data.strangers import centred, strangers
from efquantface.errors import DataError, RunError
from efquantface.evaluation.shared import people_in_both
from efquantface.verbs.curate import write_subset

RNG = np.random.default_rng(3)


def people(count: int, each: int, seed: int = 0, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count, 1, size))
    rows = (centres + 0.6 * rng.normal(size=(count, each, size))).reshape(-1, size)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), np.repeat(np.arange(count), each)


# choosing ----------------------------------------------------------------------------------


def test_identities_take_turns() -> None:
    identities = np.repeat(np.arange(10), [1, 1, 1, 1, 1, 1, 1, 1, 50, 2])
    chosen = choose(identities, 10, "identities", seed=1)
    assert sorted(identities[chosen].tolist()) == list(range(10))
    twelve = choose(identities, 12, "identities", seed=1)
    assert np.bincount(identities[twelve]).tolist() == [1] * 8 + [2, 2]
    np.testing.assert_array_equal(chosen, choose(identities, 10, "identities", seed=1))
    assert len(choose(np.full(20, -1), 7, "identities")) == 7
    assert len(set(choose(identities, 30, "random", seed=2).tolist())) == 30


def test_coverage_leaves_nothing_far_away() -> None:
    """Ten tight clusters: ten centres take one each, as random ones would not."""
    rows, cluster = people(10, 30)
    chosen = choose(cluster, 10, "coverage", embeddings=rows)
    assert sorted(cluster[chosen].tolist()) == list(range(10))
    farthest = 1 - (rows @ rows[chosen].T).max(axis=1).min()
    at_random = 1 - (rows @ rows[choose(cluster, 10, "random")].T).max(axis=1).min()
    assert farthest < at_random


@pytest.mark.parametrize(
    ("size", "by", "message"),
    [(5, "luck", "choose from"), (0, "random", "--size 0"), (99, "random", "there are 40"),
     (5, "coverage", "embeddings")],
)  # fmt: skip
def test_choices_that_cannot_be_made(size: int, by: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        choose(np.arange(40), size, by)


def test_subset_is_a_list_that_loads(
    tmp_path: Path, faces_dir: Path, faces: FaceSet, contract: FaceContract
) -> None:
    path = tmp_path / "few.txt"
    assert write_subset(faces_dir, path, 12, "identities") == 48
    few = load_faces(path, contract)
    assert len(np.unique(few.identities)) == 12
    with pytest.raises(RunError, match="--force"):
        write_subset(faces_dir, path, 12, "random")
    with pytest.raises(DataError, match="--teacher"):
        write_subset(faces_dir, path, 12, "coverage", force=True)


# judging -----------------------------------------------------------------------------------


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


def test_check_and_exclude_as_verbs(
    tmp_path: Path, network: object, contract: FaceContract, capsys: pytest.CaptureFixture[str]
) -> None:
    from test_cli import efq

    from efquantface.export.onnx_writer import write_onnx
    from efquantface.importers.load import load_model

    faces = make_faces(12, 4)
    root = tmp_path / "faces"
    for name, image in zip(faces.names, faces.images, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / name, image)
    write_image(root / "person03" / "person03_0009.png", faces.images[12])  # a copy
    teacher = tmp_path / "teacher.onnx"
    write_onnx(load_model(network, contract=contract), teacher)  # type: ignore[arg-type]
    out, sheet = tmp_path / "exclude.txt", tmp_path / "sheet.png"
    words = ("data", "check", root, "--teacher", teacher, "-o", out, "--sheet", sheet)
    assert efq(*words, "--against", root) == 0
    assert f"people are in {root}, too" in capsys.readouterr().out
    assert efq(*words) == 2
    assert "--force" in capsys.readouterr().err
    assert efq(*words, "--force") == 0
    listed = read_excluded(out)
    assert full_name(root, "person03/person03_0009.png") in listed
    assert sheet.is_file()
    out.write_text("faces/person03/person03_0009.png\tnear-duplicate\nfaces/person00/nobody.png\n")
    done = compress(
        teacher, root, tmp_path / "run", epochs=0, exclude=str(out), benchmark=False, cache=False,
        quiet=True,
    )  # fmt: skip
    log = done.run.log.read_text()
    assert "left out 1 of 2 images" in log
    assert "faces: 48 images" in log
