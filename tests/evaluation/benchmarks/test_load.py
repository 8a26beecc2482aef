"""Benchmarks in the layouts they are handed out in, built by hand."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.data.images import write_image
from efquantface.embedding.embedder import Embedder
from efquantface.errors import CropError, DataError, EvaluationError
from efquantface.evaluation.benchmarks.gallery import GallerySet
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.benchmarks.pair_lists import (
    read_lfw,
    read_three_columns,
    read_two_lines,
)
from efquantface.evaluation.sets import EvalSet
from efquantface.verbs.evaluate import evaluate
from formats import agedb_splits, png, write_rec

CONTRACT = FaceContract(32, 32, 16, template="unknown")


def one(text: str) -> EvalSet:
    (item,) = load_eval(text, CONTRACT)
    assert isinstance(item, EvalSet)
    return item


def put(root: Path, name: str, image: np.ndarray) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, image)


def named(item: EvalSet) -> list[tuple[str, str, bool, int]]:
    assert item.pairs is not None
    p = item.pairs
    return [
        (item.faces.names[a], item.faces.names[b], bool(s), int(f))
        for a, b, s, f in zip(p.a, p.b, p.same, p.folds, strict=True)
    ]


def test_calfw_and_cplfw(tmp_path: Path, faces: FaceSet) -> None:
    for i in range(4):
        put(tmp_path / "aligned images", f"A_{i}.png", faces.images[i])
        put(tmp_path / "images", f"A_{i}.png", faces.images[i])  # not aligned, same names
    lines = ["A_0.jpg 1", "A_1.jpg 1", "A_2.jpg 0", "A_3.jpg 0"]
    (tmp_path / "pairs_CALFW.txt").write_text("\n".join(lines) + "\n")
    item = one(f"calfw={tmp_path}")
    assert named(item) == [
        ("aligned images/A_0.png", "aligned images/A_1.png", True, 0),
        ("aligned images/A_2.png", "aligned images/A_3.png", False, 1),
    ]
    (tmp_path / "pairs_CALFW.txt").write_text("A_0.jpg 1\nA_9.jpg 1\n")
    with pytest.raises(DataError, match=r"no pair is left of 1; .*not there: 'A_9\.jpg'"):
        one(f"calfw={tmp_path}")


@pytest.mark.parametrize(
    ("text", "message"),
    [("a.jpg 1\nb.jpg 0\n", ":1: the two lines"), ("a 1 2\n", ":1: 'a 1 2'"), ("a 1\n", "1 lines")],
)
def test_bad_two_line_lists(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_two_lines(path)


def cfp(root: Path, faces: FaceSet) -> None:
    lists: dict[str, list[str]] = {"F": [], "P": []}
    for person in range(2):
        for kind, folder in (("F", "frontal"), ("P", "profile")):
            for k in range(2):
                name = f"Data/Images/{person + 1:03d}/{folder}/{k + 1:02d}.png"
                put(root, name, faces.images[4 * person + 2 * (kind == "P") + k])
                lists[kind].append(f"{len(lists[kind]) + 1} ../{name.replace('.png', '.jpg')}")
    for kind, lines in lists.items():
        path = root / "Protocol" / f"Pair_list_{kind}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    for kind in ("FF", "FP"):
        for fold in ("01", "02"):
            folder = root / "Protocol" / "Split" / kind / fold
            folder.mkdir(parents=True)
            (folder / "same.txt").write_text("1,2\n")
            (folder / "diff.txt").write_text("1,3\n")


def test_cfp(tmp_path: Path, faces: FaceSet) -> None:
    cfp(tmp_path, faces)
    frontal, profile = "Data/Images/001/frontal", "Data/Images/001/profile"
    assert named(one(f"cfp_ff={tmp_path}"))[:2] == [
        (f"{frontal}/01.png", f"{frontal}/02.png", True, 0),
        (f"{frontal}/01.png", "Data/Images/002/frontal/01.png", False, 0),
    ]
    pairs = named(one(f"cfp_fp={tmp_path}"))
    assert pairs[0] == (f"{frontal}/01.png", f"{profile}/02.png", True, 0)
    assert pairs[3] == (f"{frontal}/01.png", "Data/Images/002/profile/01.png", False, 1)
    (tmp_path / frontal / "02.png").unlink()  # file names alone do not tell these images
    item = one(f"cfp_ff={tmp_path}")
    assert item.pairs is not None
    assert (item.pairs.same.tolist(), len(item.pairs.dropped)) == ([False, False], 2)
    (tmp_path / "Protocol/Split/FP/02/diff.txt").write_text("1,77\n")
    with pytest.raises(DataError, match=r"02/diff\.txt:1: no image 1, 77"):
        one(f"cfp_fp={tmp_path}")
    (tmp_path / "Protocol/Split/FP/02/diff.txt").write_text("1;7\n")
    with pytest.raises(DataError, match=r"diff\.txt:1"):
        one(f"cfp_fp={tmp_path}")


def test_agedb(tmp_path: Path, faces: FaceSet) -> None:
    """Cells of structs of cells, as MATLAB writes the official protocol."""
    names = ["0_MariaCallas_35_f", "1_MariaCallas_70_f", "2_JohnDoe_20_m"]
    for name, image in zip(names, faces.images, strict=False):
        put(tmp_path / "03_Protocol_Images", f"{name}.png", image)

    savemat(tmp_path / "04_FINAL_protocol_30_years.mat", {"splits": agedb_splits(names)})
    root = "03_Protocol_Images"
    assert named(one(f"agedb_30={tmp_path}"))[2:] == [
        (f"{root}/{names[0]}.png", f"{root}/{names[1]}.png", True, 1),
        (f"{root}/{names[0]}.png", f"{root}/{names[2]}.png", False, 1),
    ]
    (tmp_path / "04_FINAL_protocol_30_years.mat").write_bytes(b"nothing")
    with pytest.raises(DataError, match="is no MATLAB file"):
        one(f"agedb_30={tmp_path}")
    (tmp_path / "04_FINAL_protocol_30_years.mat").unlink()
    lines = [f"{names[0]}.jpg {names[1]}.jpg 1", f"{names[0]}.jpg {names[2]}.jpg -1"]
    (tmp_path / "agedb_30_pair.txt").write_text("\n".join(lines))
    assert [p[2] for p in named(one(f"agedb={tmp_path}"))] == [True, False]
    (tmp_path / "agedb_30_pair.txt").write_text("a.jpg b.jpg maybe\n")
    with pytest.raises(DataError, match=r":1: 'a\.jpg b\.jpg maybe'"):
        read_three_columns(tmp_path / "agedb_30_pair.txt")


def rfw(root: Path, faces: FaceSet) -> None:
    for group, first in (("African", 0), ("Asian", 6)):
        people = [f"m.{first + i}" for i in range(6)]
        for i, person in enumerate(people):
            for k in range(4):
                image = faces.images[4 * (first + i) + k]
                put(root, f"data/{group}/{person}/{person}_{k + 1:04d}.png", image)
        lines = []
        for fold in range(10):
            a, b = people[fold % 6], people[(fold + 1) % 6]
            lines += [f"{a}\t1\t{2 + fold % 3}", f"{a}\t1\t{b}\t2"]
        listed = root / "txts" / group / f"{group}_pairs.txt"
        listed.parent.mkdir(parents=True)
        listed.write_text("\n".join(lines) + "\n")


def test_rfw_is_four_sets_and_their_spread(tmp_path: Path, faces: FaceSet, network: object) -> None:
    rfw(tmp_path / "test", faces)
    items = load_eval(f"rfw={tmp_path}", CONTRACT)
    assert [i.name for i in items] == ["rfw African", "rfw Asian"]
    assert [p[3] for p in named(items[0])] == [f for f in range(10) for _ in range(2)]
    embedder = Embedder.open(network, contract=CONTRACT)
    results = evaluate(embedder, items, against=embedder, quiet=True)
    assert [r.protocol for r in results] == ["rfw African pairs", "rfw Asian pairs", "rfw groups"]
    accuracies = [r.metric("accuracy").teacher for r in results[:2]]
    spread = results[2].metric("spread of accuracy")
    assert spread.teacher == pytest.approx(max(accuracies) - min(accuracies))
    assert spread.student == spread.teacher


def test_group_by(tmp_path: Path, faces_dir: Path, faces: FaceSet, network: object) -> None:
    table = tmp_path / "groups.csv"
    rows = [f"person{i:02d},{'old' if i < 6 else 'young'}" for i in range(12)]
    table.write_text("\n".join(["name,group", *rows]) + "\n")
    embedder = Embedder.open(network, contract=CONTRACT)
    (result,) = evaluate(
        embedder, f"folder={faces_dir}", against=embedder, group_by=table, quiet=True
    )
    values = [result.metric(f"{g}: FAR at FAR=0.01 over all").teacher for g in ("old", "young")]
    spread = result.metric("spread of FAR at FAR=0.01 over all")
    assert spread.teacher == pytest.approx(abs(values[0] - values[1]))
    # by hand: cosines within a group against the threshold of all pairs
    e = embedder.embed(faces.images)
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    scores, who = e @ e.T, faces.identities
    upper = np.triu(np.ones_like(scores, bool), 1)
    different = who[:, None] != who[None]
    impostor = np.sort(scores[upper & different])[::-1]
    cut = impostor[int(0.01 * len(impostor))]
    within = upper & different & (who[:, None] < 6) & (who[None] < 6)
    assert values[0] == pytest.approx((scores[within] > cut).mean())
    table.write_text("name,group\nstranger,old\n")
    with pytest.raises(DataError, match="names none of"):
        evaluate(embedder, f"folder={faces_dir}", group_by=table, quiet=True)
    table.write_text("name,group\na,x\na,y\n")
    with pytest.raises(DataError, match="in two groups"):
        evaluate(embedder, f"folder={faces_dir}", group_by=table, quiet=True)
    table.write_text("who,what\n")
    with pytest.raises(DataError, match="columns name, group"):
        evaluate(embedder, f"folder={faces_dir}", group_by=table, quiet=True)


def pairs_of(faces: FaceSet) -> list[tuple[int, int, bool]]:
    found = []
    for fold in range(10):
        found += [(4 * fold, 4 * fold + 1, True), (4 * fold + 2, 4 * fold + 7, False)]
        found += [(4 * fold + 1, 4 * fold + 3, True), (4 * fold, 4 * fold + 5, False)]
    return found


def test_one_benchmark_in_four_forms_gives_the_same_numbers(
    tmp_path: Path, faces_dir: Path, faces: FaceSet, network: object
) -> None:
    pairs = pairs_of(faces)
    folds = np.repeat(np.arange(10), 4)
    lines = []
    for a, b, same in pairs:
        (x, i), (y, j) = (n[:-4].rsplit("_", 1) for n in (faces.names[a], faces.names[b]))
        x, y = x.split("/")[0], y.split("/")[0]
        lines.append(f"{x} {int(i)} {int(j)}" if same else f"{x} {int(i)} {y} {int(j)}")
    (faces_dir / "pairs.txt").write_text("\n".join(["10 2", *lines]) + "\n")
    files = [(faces_dir / n).read_bytes() for n in faces.names]
    data = ([files[i] for a, b, _ in pairs for i in (a, b)], [same for _, _, same in pairs])
    bins = tmp_path / "bins"
    bins.mkdir()
    (bins / "lfw.bin").write_bytes(pickle.dumps(data, protocol=2))
    write_rec(tmp_path / "lfw.rec", files, [int(i) for i in faces.identities])
    rows = ["a,b,same,fold"]
    for (a, b, same), fold in zip(pairs, folds, strict=True):
        rows.append(f"lfw.rec#{a + 1},lfw.rec#{b + 1},{int(same)},{fold}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    embedder = Embedder.open(network, contract=CONTRACT)
    wanted = [f"lfw={faces_dir}", str(bins), f"lfw={bins / 'lfw.bin'}"]
    wanted.append(f"lfw={tmp_path / 'pairs.csv'}")
    results = [evaluate(embedder, w, arcface=True, quiet=True)[0] for w in wanted]
    assert {r.protocol for r in results} == {"lfw pairs"}
    first = results[0].metrics
    for other in results[1:]:
        for mine, theirs in zip(other.metrics, first, strict=True):
            assert (mine.name, mine.teacher_interval) == (theirs.name, theirs.teacher_interval)
            # lengths: which crops share a batch shows in the last bits
            loose = 1e-6 if "length" in mine.name else 0
            assert mine.teacher == pytest.approx(theirs.teacher, rel=loose, abs=0)


def test_gallery_and_probe(tmp_path: Path, faces: FaceSet) -> None:
    for i, name in enumerate(faces.names):
        part = "gallery" if i % 4 < 2 else "probe"
        if not (part == "gallery" and i >= 32):  # the last four people are not enrolled
            put(tmp_path / part, name, faces.images[i])
    (item,) = load_eval(f"office={tmp_path}", CONTRACT)
    assert isinstance(item, GallerySet)
    assert (len(item.gallery), len(item.probe)) == (16, 24)
    assert len(set(item.subjects[1]) - set(item.subjects[0])) == 4


def test_bad_headers_and_sizes(tmp_path: Path, faces: FaceSet) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("10 300\nA 1 2\n")
    with pytest.raises(DataError, match="promises 6000 pairs, has 1"):
        read_lfw(path)
    path.write_bytes(pickle.dumps(([png(faces.images[0])] * 2, [True])))
    moved = path.with_suffix(".bin")
    path.rename(moved)
    with pytest.raises(CropError, match="not 112x112"):
        load_eval(str(moved), FaceContract(112, 112, 16))
    with pytest.raises(EvaluationError, match="both needed"):
        evaluate_one_class(moved)


def evaluate_one_class(path: Path) -> None:
    from efquantface.evaluation.run import evaluate_set

    item = one(f"x={path}")
    evaluate_set(item, np.ones((len(item.faces), 4), np.float32))
