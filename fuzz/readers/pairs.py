"""Readers of pair lists and tables, in each benchmark's own format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import savemat

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.data.images import write_image
from efquantface.data.template import TEMPLATES
from efquantface.evaluation.benchmarks import pair_lists
from efquantface.evaluation.benchmarks.ijb import load_ijb
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.benchmarks.pairing import Row
from efquantface.evaluation.sets import EvalSet
from formats import agedb_splits
from fuzz.target import Files, Target, files_of

_CONTRACT = FaceContract(16, 16, 16, template="unknown")


def _check(rows: list[Row]) -> None:
    assert rows
    for row in rows:
        assert isinstance(row.a, str)
        assert isinstance(row.b, str)
        assert row.same in (True, False)
        assert row.fold >= 0
        np.asarray([row.fold], np.int64)


def _lines(name: str, *texts: str) -> list[Files]:
    return [{name: text.encode()} for text in texts]


def _lfw_seeds(folder: Path) -> list[Files]:
    body = "Ann_Lee\t1\t2\nAnn_Lee\t1\tBo\t3\nBo\t2\t3\nBo\t1\tAnn_Lee\t4\n"
    return _lines("pairs.txt", "2\t1\n" + body, body, "2\n" + body)


def _two_line_seeds(folder: Path) -> list[Files]:
    return _lines("pairs.txt", "a_1.jpg\t1\na_2.jpg\t1\nb_1.jpg\t0\nc.jpg\t0\n")


def _three_seeds(folder: Path) -> list[Files]:
    return _lines("pairs.txt", "a/1.jpg a/2.jpg 1\na/1.jpg b/1.jpg 0\nb/1.jpg b/2.jpg -1\n")


def _csv_seeds(folder: Path) -> list[Files]:
    return _lines(
        "pairs.csv",
        "a,b,same\na/1.png,a/2.png,1\na/1.png,b/1.png,0\n",
        'a,b,same,fold\n"a,1.png",a/2.png,true,0\na/1.png,b/1.png,False,1\n',
    )


def _cfp_seeds(folder: Path) -> list[Files]:
    made: Files = {}
    for kind in "FP":
        lines = (f"{i + 1} ../Data/Images/{i:03d}/{kind}/0{i}.jpg" for i in range(4))
        made[f"Pair_list_{kind}.txt"] = "\n".join(lines).encode()
    for kind in ("FF", "FP"):
        for fold in ("01", "02"):
            made[f"Split/{kind}/{fold}/same.txt"] = b"1,2\n"
            made[f"Split/{kind}/{fold}/diff.txt"] = b"1,3\n3,4\n"
    return [made]


def _read_cfp(folder: Path) -> None:
    for kind in ("FF", "FP"):
        _check(pair_lists.read_cfp(folder, kind))


def _agedb_seeds(folder: Path) -> list[Files]:
    names = ("0_MariaCallas_35_f", "1_MariaCallas_70_f", "2_JohnDoe_20_m")

    made = []
    for packed in (False, True):
        savemat(folder / "p.mat", {"splits": agedb_splits(names)}, do_compression=packed)
        made.append({"protocol.mat": (folder / "p.mat").read_bytes()})
    return made


def _ijb_seeds(folder: Path) -> list[Files]:
    points = TEMPLATES["arcface112"].array().reshape(-1)
    marks = [" ".join([f"{i}.jpg", *(f"{v:.2f}" for v in points), "0.9"]) for i in range(6)]
    crops = [f"{i}.jpg {100 + i // 2} {i}" for i in range(6)]
    lists = ["T,S,F", "100,1,x", "101,2,y"]
    meta = {
        "ijbc_name_5pts_score.txt": marks,
        "ijbc_face_tid_mid.txt": crops,
        "ijbc_template_pair_label.txt": ["100 101 0", "100 102 1"],
        "ijbc_1N_gallery_G1.csv": lists,
        "ijbc_1N_probe_mixed.csv": [*lists, "102,1,x"],
    }
    files = {f"meta/{name}": "\n".join(lines).encode() for name, lines in meta.items()}
    return [{**files, "loose_crop/0.jpg": b""}]


def _read_ijb(folder: Path) -> None:
    found = load_ijb("ijbc", folder, FaceContract(112, 112, 16))
    count = len(found.names)
    assert found.landmarks.shape == (count, 5, 2)
    assert found.templates.shape == found.media.shape == found.confidence.shape == (count,)
    assert np.isfinite(found.landmarks).all()
    assert np.isin(np.concatenate([found.a, found.b]), found.templates).all()


def _folder_seeds(folder: Path) -> list[Files]:
    """LFW's layout with its images."""
    faces = make_faces(2, 3, size=16)
    for name, image in zip(faces.names, faces.images, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        write_image(folder / name, image)
    lines = "person00\t1\t2\nperson00\t1\tperson01\t1\nperson01\t1\t3\nperson01\t2\tperson00\t3\n"
    (folder / "pairs.txt").write_text("2\t1\n" + lines)
    return [files_of(folder)]


def _read_folder(folder: Path) -> None:
    for item in load_eval(f"lfw={folder}", _CONTRACT):
        assert isinstance(item, EvalSet)
        assert item.pairs is not None
        assert max(item.pairs.a.max(), item.pairs.b.max()) < len(item.faces)


TARGETS = (
    Target("lfw", _lfw_seeds, lambda f: _check(pair_lists.read_lfw(f / "pairs.txt")), short=3000),
    Target(
        "calfw",
        _two_line_seeds,
        lambda f: _check(pair_lists.read_two_lines(f / "pairs.txt")),
        short=3000,
    ),
    Target(
        "rfw",
        _three_seeds,
        lambda f: _check(pair_lists.read_three_columns(f / "pairs.txt")),
        short=3000,
    ),
    Target("csv", _csv_seeds, lambda f: _check(pair_lists.read_csv(f / "pairs.csv")), short=3000),
    Target("cfp", _cfp_seeds, _read_cfp, short=1500),
    Target(
        "agedb",
        _agedb_seeds,
        lambda f: _check(pair_lists.read_agedb(f / "protocol.mat")),
        short=3000,
    ),
    Target("ijb", _ijb_seeds, _read_ijb, short=1500),
    Target("benchmark", _folder_seeds, _read_folder, short=300),
)
