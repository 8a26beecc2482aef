"""LFW's and CSV pair lists: which pairs they give, and what is wrong in them is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.data.images import write_image
from efquantface.errors import CropError, DataError
from efquantface.evaluation.benchmarks.load import load_eval

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
