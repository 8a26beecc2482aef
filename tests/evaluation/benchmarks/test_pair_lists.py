"""LFW's and CSV pair lists: which pairs they give, and what is wrong in them is named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.data.images import write_image
from efquantface.errors import CropError, DataError
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.run import evaluate_set
from efquantface.evaluation.sets import EvalSet

PAIRS = [
    "2\t1",
    "person00\t1\t2",
    "person00\t1\tperson01\t1",
    "person02\t1\t3",
    "person02\t2\tperson03\t4",
]


def lfw(root: Path, faces: FaceSet, lines: list[str]) -> Path:
    for name, image in zip(faces.names, faces.images, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / name, image)
    (root / "pairs.txt").write_text("\n".join(lines) + "\n")
    return root


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
        (["stranger 1 2", "stranger 1 other 3"], "holds none of the images"),
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
    with pytest.raises(DataError, match=r"no pair is left of 1; .*'gone\.png'"):
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


def test_images_that_are_missing_are_counted(
    tmp_path: Path, contract: FaceContract, faces: FaceSet
) -> None:
    """The rest is evaluated, and what is left out stands beside the numbers."""
    lines = ["10\t1"]
    for i in range(10):
        lines += [f"person{i:02d} 1 2", f"person{i:02d} 1 person{i + 1:02d} 3"]
    root = lfw(tmp_path, faces, lines)
    (root / "person03/person03_0002.png").unlink()
    (root / "person04/person04_0003.png").write_bytes(b"broken")
    (loaded,) = load_eval(f"lfw={root}", contract)
    assert isinstance(loaded, EvalSet)
    assert loaded.pairs is not None
    assert loaded.pairs.missing == ["person03/person03_0002"]
    assert len(loaded.pairs.dropped) == 2
    assert len(loaded.pairs.a) == 18
    (result, _) = evaluate_set(loaded, loaded.faces.images.reshape(len(loaded.faces), -1))
    assert result.counts["dropped"] == 2
    assert re.match(r"2 of 20 pairs left out \(1 images are not there", result.left_out[0])
    assert "do not compare" in result.left_out[0]


def test_missing_images_of_a_csv(contract: FaceContract, faces_dir: Path) -> None:
    names = [f"person{i:02d}/person{i:02d}_000{k}.png" for i in range(4) for k in (1, 2)]
    rows = [f"{a},{b},{int(a[:8] == b[:8])}" for a in names for b in names if a < b]
    path = faces_dir / "pairs.csv"
    path.write_text("\ufeffa,b,same\r\n" + "\r\n".join([*rows, f"{names[0]},gone.png,0"]))
    (loaded,) = load_eval(f"mine={path}", contract)
    assert isinstance(loaded, EvalSet)
    assert loaded.pairs is not None
    assert (len(loaded.pairs.a), loaded.pairs.missing) == (len(rows), ["gone.png"])


@pytest.mark.parametrize("below", ["", "lfw-deepfunneled"])
@pytest.mark.parametrize("flat", [False, True])
def test_lfw_flat_and_one_folder_down(
    tmp_path: Path, contract: FaceContract, faces: FaceSet, below: str, flat: bool
) -> None:
    for name, image in zip(faces.names, faces.images, strict=True):
        target = tmp_path / below / (Path(name).name if flat else name)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_image(target, image)
    (tmp_path / "pairs.txt").write_text("\n".join(PAIRS))
    (loaded,) = load_eval(f"lfw={tmp_path}", contract)
    assert isinstance(loaded, EvalSet)
    p, names = loaded.pairs, loaded.faces.names
    assert p is not None
    ends = [(Path(names[a]).stem, Path(names[b]).stem) for a, b in zip(p.a, p.b, strict=True)]
    assert ends[1] == ("person00_0001", "person01_0001")
    assert (p.same.tolist(), p.dropped) == ([True, False, True, False], [])
    assert loaded.all_pairs
    people = {loaded.faces.identity_names[i] for i in loaded.faces.identities}
    assert "person03" in people
    assert len(people) == (4 if flat else faces.people)  # flat, only what is listed is loaded


@pytest.mark.parametrize("header", ["1 10", "1 20", "10", "10 1", "5 2", "2\t5"])
@pytest.mark.parametrize("form", ["{}\n", "\ufeff{}\r\n"])
def test_headers_marks_and_line_ends(
    tmp_path: Path, contract: FaceContract, faces: FaceSet, header: str, form: str
) -> None:
    """Genuine pairs first or in turns; every list can be scored."""
    same = [f"person{i:02d} 1 2" for i in range(10)]
    other = [f"person{i:02d} 1 person{i + 1:02d} 3" for i in range(10)]
    root = lfw(tmp_path, faces, PAIRS)
    for rows in ([*same, *other], [r for both in zip(same, other, strict=True) for r in both]):
        text = "".join(
            form.format(line) if i == 0 else f"{line}\r\n" for i, line in enumerate([header, *rows])
        )
        (root / "pairs.txt").write_text(text, newline="")
        (loaded,) = load_eval(f"lfw={root}", contract)
        assert isinstance(loaded, EvalSet)
        assert loaded.pairs is not None
        assert len(loaded.pairs.a) == 20
        assert loaded.pairs.same.sum() == 10
        (result, _) = evaluate_set(loaded, loaded.faces.images.reshape(len(loaded.faces), -1))
        assert 0 <= result.metric("accuracy").teacher <= 1
    (root / "pairs.txt").write_text("\n".join([header, *rows]), encoding="utf-16")
    (again,) = load_eval(f"lfw={root}", contract)
    assert isinstance(again, EvalSet)
    assert again.pairs is not None
    np.testing.assert_array_equal(again.pairs.folds, loaded.pairs.folds)
