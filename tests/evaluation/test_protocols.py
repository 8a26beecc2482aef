"""arcface_torch's numbers, templates and identification against plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import KFold

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.data.images import write_image
from efquantface.data.template import TEMPLATES
from efquantface.errors import CropError, DataError, EvaluationError, RecipeError
from efquantface.evaluation.arcface import grid_accuracy
from efquantface.evaluation.benchmarks.ijb import TemplateSet
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.identification import search
from efquantface.evaluation.items import Embedded, Options
from efquantface.evaluation.run import evaluate_set, score_item
from efquantface.evaluation.sets import EvalSet, Pairs
from efquantface.evaluation.templates import TemplateFlags, TemplatePool

RNG = np.random.default_rng(5)


def test_grid_accuracy_against_arcface_torchs_procedure() -> None:
    """Written anew from its description: KFold, distances below thresholds, first best of the grid."""
    people = RNG.normal(size=(400, 16))
    a = (people + 0.9 * RNG.normal(size=people.shape)).astype(np.float32)
    b = people + 0.9 * RNG.normal(size=people.shape)
    same = RNG.random(400) < 0.5
    b = np.where(same[:, None], b, RNG.normal(size=people.shape)).astype(np.float32)
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    distance = ((x - y) ** 2).sum(1)
    thresholds = np.arange(0, 4, 0.01)
    accuracies = []
    for train, test in KFold(10, shuffle=False).split(distance):
        hits = [((distance[train] < t) == same[train]).mean() for t in thresholds]
        best = thresholds[int(np.argmax(hits))]
        accuracies.append(((distance[test] < best) == same[test]).mean())
    mean, spread = grid_accuracy(a, b, same)
    assert mean == pytest.approx(np.mean(accuracies), abs=1e-12)
    assert spread == pytest.approx(np.std(accuracies), abs=1e-12)
    assert 0.6 < mean < 1


def test_xnorm_counts_both_sides_of_every_pair() -> None:
    faces = make_faces(6, 4)
    index = np.arange(20)
    pairs = Pairs(index, (index + 1) % 24, index % 4 != 3, index // 2)
    rows = RNG.normal(size=(24, 8)).astype(np.float32)
    lengths = np.arange(24, dtype=np.float32)
    item = EvalSet("x", faces, pairs, False)
    (result,) = score_item(item, [Embedded(rows, lengths)], Options(arcface=True))
    expected = np.mean([lengths[pairs.a], lengths[pairs.b]])
    assert result.metric("length, arcface_torch XNorm").teacher == pytest.approx(expected)
    assert "flip on" in result.flags


# templates ---------------------------------------------------------------------------------


def pooled_by_loops(
    rows: np.ndarray, templates: np.ndarray, media: np.ndarray, weights: np.ndarray, flags: str
) -> np.ndarray:
    out = []
    values = rows if flags[1] == "1" else rows / np.linalg.norm(rows, axis=1, keepdims=True)
    if flags[3] == "1":
        values = values * weights[:, None]
    for template in sorted(set(templates.tolist())):
        total = np.zeros(rows.shape[1])
        for medium in sorted(set(media[templates == template].tolist())):
            total += values[(templates == template) & (media == medium)].mean(axis=0)
        out.append(total / np.linalg.norm(total))
    return np.array(out)


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


CONTRACT = FaceContract(112, 112, 16)


def ijb(root: Path) -> None:
    """Six people of three templates; their photos are patterns, the landmarks shifted templates."""
    faces = make_faces(6, 6, size=128)
    points = TEMPLATES["arcface112"].array()
    (root / "loose_crop").mkdir(parents=True)
    (root / "meta").mkdir()
    marks, crops = [], []
    for i, image in enumerate(faces.images):
        write_image(root / "loose_crop" / f"{i + 1}.png", image)
        shifted = points + RNG.uniform(2, 12, 2)
        marks.append(" ".join([f"{i + 1}.png", *(f"{v:.3f}" for v in shifted.reshape(-1)), "0.9"]))
        crops.append(f"{i + 1}.png {100 + i // 2} {i % 2 if i % 4 < 2 else 0}")
    pairs = [
        f"{100 + a} {100 + b} {int(a // 3 == b // 3)}" for a in range(18) for b in range(a + 1, 18)
    ]
    meta = {
        "ijbc_name_5pts_score.txt": marks,
        "ijbc_face_tid_mid.txt": crops,
        "ijbc_template_pair_label.txt": pairs,
        "ijbc_1N_gallery_G1.csv": ["T,S,F", *(f"{100 + 3 * p},{p},x" for p in range(4))],
        "ijbc_1N_gallery_G2.csv": ["T,S,F", *(f"{100 + 3 * p},{p},x" for p in range(2, 6))],
        "ijbc_1N_probe_mixed.csv": [
            "T,S,F",
            *(f"{100 + 3 * p + k},{p},x" for p in range(6) for k in (1, 2)),
        ],
    }
    for name, lines in meta.items():
        (root / "meta" / name).write_text("\n".join(lines) + "\n")


class Colours:
    """Embeds a crop as its mean colours in a grid, which is enough to tell patterns apart."""

    name = "colours"

    def embed(
        self, faces: np.ndarray, *, flip: bool = False, progress: object = None
    ) -> np.ndarray:
        cells = faces.reshape(len(faces), 4, 28, 4, 28, 3).mean(axis=(2, 4)).reshape(len(faces), -1)
        out = (cells - 127).astype(np.float32)
        return out + self.embed(faces[:, :, ::-1]) if flip else out


def loaded(root: Path) -> TemplateSet:
    (item,) = load_eval(f"ijbc={root}", CONTRACT)
    assert isinstance(item, TemplateSet)
    return item


def test_ijb_from_its_files(tmp_path: Path) -> None:
    ijb(tmp_path)
    item = loaded(tmp_path)
    options = Options(templates=TemplateFlags.parse("N1D1F0"))
    embedded = item.embed(Colours(), options)
    one, many = score_item(item, [embedded, embedded], options)
    assert one.flags == "template flags N1D1F0, cosine"
    assert one.counts == {"genuine": 18, "impostor": 135, "images": 36, "templates": 18}
    rows = Colours().embed(np.stack([item.crop(i) for i in range(36)]))
    flags = pooled_by_loops(rows, item.templates, item.media, item.confidence, "N1D1F0")
    scores = flags @ flags.T
    who = np.arange(18) // 3
    upper = np.triu(np.ones((18, 18), bool), 1)
    impostor = np.sort(scores[upper & (who[:, None] != who)])[::-1]
    genuine = scores[upper & (who[:, None] == who)]
    expected = (genuine > impostor[int(0.1 * 135)] + 1e-7).mean()
    assert one.metric("TAR@FAR=0.1").teacher == pytest.approx(expected)
    assert (
        one.metric("teacher's gallery, student's probes").student
        == one.metric("student's gallery, teacher's probes").teacher
    )
    # rank-1 of both galleries, by hand
    rates = []
    for people in (range(4), range(2, 6)):
        hits = [
            max(people, key=lambda p: scores[3 * p, 3 * q + k]) == q for q in people for k in (1, 2)
        ]
        rates.append(np.mean(hits))
    assert many.metric("rank-1").teacher == pytest.approx(np.mean(rates))
    assert many.metric("TPIR@FPIR=0.1").student == many.metric("TPIR@FPIR=0.1").teacher


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("ijbc_template_pair_label.txt", "100 999 0", "1 templates .* first is 999"),
        ("ijbc_template_pair_label.txt", "100 101 7", r":1: the label is 7"),
        ("ijbc_template_pair_label.txt", "100 x 1", "ijbc_template_pair_label.txt: .*x"),
        ("ijbc_face_tid_mid.txt", "9.png 100 0", "names other crops"),
        ("ijbc_face_tid_mid.txt", "1.png 100", ":1: 2 columns, 3 are needed"),
        ("ijbc_name_5pts_score.txt", "1.png 1 2 3", ":1: 4 columns, 12 are needed"),
        (
            "ijbc_name_5pts_score.txt",
            "1.png" + " nan" * 11,
            ":1: holds a number that is not finite",
        ),
        ("ijbc_1N_probe_mixed.csv", "T,S\nx,1", ":2: 'x,1' is not"),
        ("ijbc_1N_probe_mixed.csv", "T,S\n101,1\n101,2", ":3: template 101 has two subjects"),
    ],
)
def test_damaged_ijb(tmp_path: Path, name: str, line: str, message: str) -> None:
    ijb(tmp_path)
    path = tmp_path / "meta" / name
    rest = path.read_text().splitlines()[1:]
    path.write_text("\n".join([line, *rest]) + "\n")
    with pytest.raises(DataError, match=message):
        loaded(tmp_path)


def test_missing_crops_stop_the_evaluation(tmp_path: Path) -> None:
    ijb(tmp_path)
    item = loaded(tmp_path)
    (tmp_path / "loose_crop" / "7.png").write_bytes(b"no image")
    with pytest.raises(EvaluationError, match=r"7\.png: cannot be read"):
        item.embed(Colours(), Options())
    with pytest.raises(CropError, match="takes 32x32"):
        load_eval(f"ijbc={tmp_path}", FaceContract(32, 32, 16))


# identification ----------------------------------------------------------------------------


def test_search_by_hand() -> None:
    gallery = np.eye(3, dtype=np.float32)
    probes = np.array([[1, 0.2, 0], [0.9, 1, 0], [0, 0.3, 1], [1, 1, 0.1]], np.float32)
    found = search(gallery, np.array([10, 20, 30]), probes, np.array([10, 10, 30, 99]))
    assert found.rank.tolist() == [1, 2, 1, 0]
    assert found.rank_rate(1) == pytest.approx(2 / 3)
    assert found.rank_rate(2) == 1
    stranger = 1 / np.sqrt(2.01)
    assert found.threshold(0.1) == pytest.approx(stranger, abs=1e-6)
    own = [1 / np.sqrt(1.04), 0.9 / np.sqrt(1.81), 1 / np.sqrt(1.09)]
    assert found.tpir(found.threshold(0.1)) == pytest.approx(np.mean(np.array(own) > stranger))


def test_search_takes_the_best_template_of_an_identity() -> None:
    gallery = RNG.normal(size=(40, 8)).astype(np.float32)
    subjects = RNG.integers(0, 12, 40)
    probes, who = RNG.normal(size=(60, 8)).astype(np.float32), RNG.integers(0, 15, 60)
    found = search(gallery, subjects, probes, who)
    g = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    p = probes / np.linalg.norm(probes, axis=1, keepdims=True)
    for i in range(60):
        best = {s: float((g[subjects == s] @ p[i]).max()) for s in set(subjects.tolist())}
        others = [v for s, v in best.items() if s != who[i]]
        assert found.other[i] == pytest.approx(max(others), abs=1e-6)
        if who[i] in best:
            assert found.mate[i] == pytest.approx(best[who[i]], abs=1e-6)
            assert found.rank[i] == 1 + sum(v > best[who[i]] for v in others)
        else:
            assert found.rank[i] == 0
    with pytest.raises(EvaluationError, match="no probe's identity"):
        search(gallery, subjects, probes, who + 100)
    with pytest.raises(EvaluationError, match="probes: embedding 0 is not finite"):
        search(gallery, subjects, probes * np.nan, who)


# compatibility -----------------------------------------------------------------------------


def test_galleries_across_models_by_hand() -> None:
    faces = make_faces(6, 4)
    index = np.arange(24)
    pairs = Pairs(
        np.concatenate([index[:-1], index[:20], index[:16]]),
        np.concatenate([index[1:], index[4:], index[8:]]),
        np.concatenate([index[:-1] // 4 == index[1:] // 4, np.zeros(36, bool)]),
        np.arange(59) % 2,
    )
    base = np.repeat(RNG.normal(size=(6, 8)), 4, axis=0)
    teacher = (base + 0.3 * RNG.normal(size=(24, 8))).astype(np.float32)
    student = (teacher + 0.2 * RNG.normal(size=(24, 8))).astype(np.float32)
    result = evaluate_set(EvalSet("x", faces, pairs, False), teacher, student)[0]
    t, s = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (teacher, student))
    own = (s[pairs.a] * s[pairs.b]).sum(1)
    cut = np.sort(own[~pairs.same])[::-1][int(0.1 * (~pairs.same).sum())]
    mixed = (s[pairs.a] * t[pairs.b]).sum(1)
    metric = result.metric("student's gallery, teacher's probes")
    assert metric.teacher == pytest.approx((mixed[pairs.same] > cut).mean())
    assert metric.student == pytest.approx((own[pairs.same] > cut).mean())
    assert result.metric("threshold at FAR=0.1").student == pytest.approx(cut, abs=1e-5)
