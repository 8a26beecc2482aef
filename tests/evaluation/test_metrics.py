"""Metrics against scikit-learn and brute force; protocols against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.data.images import write_image
from efquantface.errors import CropError, DataError, EvaluationError
from efquantface.evaluation.allpairs import score_all_pairs
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.bootstrap import mean_interval, tar_intervals
from efquantface.evaluation.metrics import (
    area_under_roc,
    best_threshold,
    equal_error_rate,
    fold_accuracy,
    rates_at,
    supported_fars,
    tar_at_far,
)
from efquantface.evaluation.run import embedding_lengths, evaluate_set
from efquantface.evaluation.sets import EvalSet

RNG = np.random.default_rng(0)
GENUINE = RNG.normal(0.6, 0.2, 400).astype(np.float32)
IMPOSTOR = RNG.normal(0.1, 0.2, 3000).astype(np.float32)
SCORES = np.concatenate([GENUINE, IMPOSTOR])
LABELS = np.concatenate([np.ones(400), np.zeros(3000)])


def test_auc_and_eer_against_sklearn() -> None:
    assert area_under_roc(GENUINE, IMPOSTOR) == pytest.approx(
        roc_auc_score(LABELS, SCORES), abs=1e-9
    )
    fpr, tpr, _ = roc_curve(LABELS, SCORES, drop_intermediate=False)
    crossing = np.argmin(np.abs(fpr - (1 - tpr)))
    assert equal_error_rate(GENUINE, IMPOSTOR) == pytest.approx(fpr[crossing], abs=2e-3)
    assert area_under_roc(np.ones(3, np.float32), np.ones(2, np.float32)) == 0.5


@pytest.mark.parametrize("far", [0.1, 0.01, 0.001, 0.0123])
def test_tar_at_far_against_brute_force(far: float) -> None:
    point = tar_at_far(GENUINE, IMPOSTOR, far)
    assert (IMPOSTOR >= point.threshold).mean() <= far
    candidates = np.unique(SCORES)
    best = max((GENUINE >= t).mean() for t in candidates if (IMPOSTOR >= t).mean() <= far)
    assert point.tar == pytest.approx(best)
    fpr, tpr, _ = roc_curve(LABELS, SCORES, drop_intermediate=False)
    assert point.tar == pytest.approx(tpr[fpr <= far].max())


def test_tar_with_ties_by_hand() -> None:
    impostor = np.array([0.9, 0.5, 0.5, 0.5], np.float32)
    genuine = np.array([0.95, 0.6, 0.5, 0.1], np.float32)
    # one of four may be accepted: the threshold lies just above 0.5, and 0.5 itself is rejected
    assert tar_at_far(genuine, impostor, 0.25).tar == 0.5
    assert tar_at_far(genuine, impostor, 0.5).tar == 0.5
    assert tar_at_far(genuine, impostor, 0.01).tar == 0.25
    with pytest.raises(EvaluationError):
        tar_at_far(genuine, np.empty(0, np.float32), 0.1)


def test_best_threshold_against_brute_force() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scores = rng.integers(0, 12, 40).astype(np.float32) / 12
        same = rng.random(40) < scores
        threshold = best_threshold(scores, same)
        trials = np.unique(np.concatenate([scores - 0.01, scores + 0.01]))
        best = max(((scores >= t) == same).sum() for t in trials)
        assert ((scores >= threshold) == same).sum() == best


def test_fold_accuracy_by_hand() -> None:
    scores = np.array([0.9, 0.1, 0.8, 0.7, 0.4, 0.3], np.float32)
    same = np.array([True, False, True, False, True, False])
    folds = np.array([0, 0, 1, 1, 2, 2])
    result = fold_accuracy(scores, same, folds)
    assert result.correct.tolist()[:2] == [True, True]
    assert result.mean == pytest.approx(
        np.mean([result.correct[folds == f].mean() for f in range(3)])
    )
    with pytest.raises(EvaluationError, match="two folds"):
        fold_accuracy(scores, same, np.zeros(6, int))
    with pytest.raises(EvaluationError, match="one class"):
        fold_accuracy(scores[:4], np.array([True, True, False, False]), np.array([0, 0, 1, 1]))


def test_supported_fars() -> None:
    assert supported_fars(3000) == [1e-1, 1e-2, 1e-3]
    assert supported_fars(29_600_000)[-1] == 1e-6
    assert supported_fars(10) == []


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


def test_intervals_cover() -> None:
    hits = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        low, high = mean_interval((rng.random(300) < 0.9).astype(float), seed)
        hits += low <= 0.9 <= high
    assert hits >= 88
    groups = np.repeat(np.arange(30), 10)
    same = np.repeat((np.arange(30) % 3 > 0).astype(float), 10)
    wide = mean_interval(same, groups=groups)
    narrow = mean_interval(same)
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_paired_interval_is_narrower_than_two_alone() -> None:
    student = GENUINE - RNG.normal(0.01, 0.01, 400).astype(np.float32)
    found = tar_intervals({"teacher": (GENUINE, IMPOSTOR), "student": (student, IMPOSTOR)}, 0.01)
    paired, alone = found["student - teacher"], found["teacher"]
    assert paired[1] - paired[0] < 0.8 * (alone[1] - alone[0])
    assert paired[0] < 0


# protocols ---------------------------------------------------------------------------------


def lfw(root: Path, faces: FaceSet, lines: list[str]) -> Path:
    for name, image in zip(faces.names, faces.images, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / name, image)
    (root / "pairs.txt").write_text("\n".join(lines) + "\n")
    return root


PAIRS = [
    "2\t1",
    "person00\t1\t2",
    "person00\t1\tperson01\t1",
    "person02\t1\t3",
    "person02\t2\tperson03\t4",
]


def test_lfw_folder(tmp_path: Path, contract: FaceContract, faces: FaceSet) -> None:
    root = lfw(tmp_path / "lfw data ü", faces, PAIRS)
    (loaded,) = load_eval(f"lfw={root}", contract)
    assert loaded.pairs is not None
    assert loaded.pairs.same.tolist() == [True, False, True, False]
    assert loaded.pairs.folds.tolist() == [0, 0, 1, 1]
    names = loaded.faces.names
    assert names[loaded.pairs.b[1]] == "person01/person01_0001.png"
    assert loaded.all_pairs


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["nonsense"], ":1: 'nonsense' is not a pair line"),
        (PAIRS[:-1], "has 3 pairs"),
        ([*PAIRS[:-1], "person02 x person03 4"], ":5: 'person02 x person03 4' is not a pair"),
        ([*PAIRS[:-1], "person02 1 stranger 4"], "stranger/stranger_0004"),
    ],
)
def test_bad_pairs_txt(
    tmp_path: Path, contract: FaceContract, faces: FaceSet, lines: list[str], message: str
) -> None:
    root = lfw(tmp_path, faces, lines)
    with pytest.raises(DataError, match=message):
        load_eval(f"lfw={root}", contract)


def test_unreadable_image_drops_its_pairs(
    tmp_path: Path, contract: FaceContract, faces: FaceSet
) -> None:
    root = lfw(tmp_path, faces, PAIRS)
    (root / "person03/person03_0004.png").write_bytes(b"\x89PNG broken")
    (loaded,) = load_eval(f"lfw={root}", contract)
    assert loaded.pairs is not None
    assert loaded.pairs.dropped == ["person02/person02_0002 - person03/person03_0004"]
    assert len(loaded.pairs.a) == 3


def test_csv_pairs(tmp_path: Path, contract: FaceContract, faces_dir: Path) -> None:
    rows = ["a,b,same"]
    images = [[f"person{i:02d}/person{i:02d}_{j:04d}.png" for j in (1, 2)] for i in range(12)]
    rows += [f"{first},{second},1" for first, second in images]
    rows += [f"{images[i][0]},{images[(i + 1) % 12][0]},0" for i in range(12)]
    path = faces_dir / "pairs.csv"
    path.write_text("\n".join(rows))
    (loaded,) = load_eval(f"pairs={path}", contract)
    assert loaded.pairs is not None
    assert len(np.unique(loaded.pairs.folds)) == 10
    assert loaded.pairs.same.sum() == 12
    path.write_text("a,b,same\nperson00/person00_0001.png,gone.png,1\n")
    with pytest.raises(DataError, match=r"'gone\.png' is not an image file"):
        load_eval(f"pairs={path}", contract)
    path.write_text("a,b,same\nx.png,y.png,maybe\n")
    with pytest.raises(DataError, match=r"pairs\.csv:2: same is 'maybe'"):
        load_eval(f"pairs={path}", contract)
    path.write_text("left,right\n")
    with pytest.raises(DataError, match="columns a, b, same"):
        load_eval(f"pairs={path}", contract)


def test_eval_of_other_size_and_place(tmp_path: Path, faces_dir: Path) -> None:
    other = FaceContract(112, 112, 16)
    with pytest.raises(CropError, match=r"100%.*efq align"):
        load_eval(f"folder={faces_dir}", other)
    with pytest.raises(DataError, match="NAME=PATH"):
        load_eval(f"={faces_dir}", other)
    with pytest.raises(DataError, match="no such folder"):
        load_eval(f"folder={tmp_path / 'nowhere'}", other)
    with pytest.raises(DataError, match=r"pairs\.txt"):
        load_eval(f"lfw={faces_dir}", FaceContract(32, 32, 16))


def test_a_student_equal_to_its_teacher_loses_nothing() -> None:
    faces = make_faces()
    embeddings = RNG.normal(size=(12, 1, 8)) + 0.2 * RNG.normal(size=(12, 4, 8))
    teacher = embeddings.reshape(-1, 8).astype(np.float32)
    result = evaluate_set(EvalSet("x", faces, None, True), teacher, 3 * teacher, threshold=0.5)[0]
    for metric in result.metrics:
        if metric.loss is not None:
            assert metric.loss == 0
            assert metric.loss_interval in (None, (0.0, 0.0))
    assert result.metric("cosine to teacher").student == pytest.approx(1, abs=1e-6)
    gallery = result.metric("teacher's gallery, student's probes")
    assert gallery.teacher == gallery.student
    lengths = embedding_lengths(teacher, 3 * teacher)
    assert lengths["ratio"] == pytest.approx(3, rel=1e-5)
    assert lengths["rank_correlation"] == pytest.approx(1)


def test_rank_correlation_of_lengths() -> None:
    """Lengths 1, 2, 3, 4 against 1, 3, 2, 4: 1 - 6 * 2 / (4 * 15); ties share their mean rank."""
    direction = np.array([[0.6, 0.8]], np.float32)

    def rows(*lengths: float) -> np.ndarray:
        return np.array(lengths, np.float32)[:, None] * direction

    found = embedding_lengths(rows(1, 2, 3, 4), rows(1, 3, 2, 4))
    assert found["rank_correlation"] == pytest.approx(0.8)
    tied = embedding_lengths(rows(1, 2, 2, 3), rows(1, 2, 2, 3))
    assert tied["rank_correlation"] == pytest.approx(1)
    assert embedding_lengths(rows(1, 1, 1), rows(1, 2, 3))["rank_correlation"] == 1.0


def test_rates_at_a_deployed_threshold() -> None:
    far, frr = rates_at(
        np.array([0.3, 0.5, 0.9], np.float32), np.array([0.1, 0.5, 0.2, 0.3], np.float32), 0.5
    )
    assert (far, frr) == (0.25, pytest.approx(1 / 3))
