"""Scripts of benchmarks/: each says what it does; crops, places and names that they share."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.runner.crops import cosines, lfw_crops
from benchmarks.runner.places import Place
from benchmarks.runner.script import lfw_folder, named, network_of
from drawn import crop
from efquantface.contract import FaceContract
from efquantface.data.images import write_image
from face_files import SIZE, backbone, dense, ran, save

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py") if not path.stem.startswith("__"))
PEOPLE = 6


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.mark.parametrize("name", NAMES)
def test_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(name)
    monkeypatch.setattr("sys.argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_a_run_is_named_by_its_network(tmp_path: Path) -> None:
    (tmp_path / "student.safetensors").touch()
    assert named(f"mobileface2/w4a8={tmp_path}") == ("mobileface2/w4a8", tmp_path)
    assert network_of("mobileface2/w4a8") == "mobileface2"
    for text in (f"mobileface={tmp_path}", f"y1={tmp_path / 'none'}", "y1"):
        with pytest.raises(argparse.ArgumentTypeError, match="NETWORK=RUN"):
            named(text)


def test_dlibs_crops_have_to_be_given(tmp_path: Path) -> None:
    given = argparse.Namespace(shared=tmp_path, dlib=None)
    assert lfw_folder("y1", given) == tmp_path / "data" / "lfw112"
    with pytest.raises(SystemExit, match="--dlib"):
        lfw_folder("dlib", given)
    assert lfw_folder("dlib", argparse.Namespace(shared=tmp_path, dlib=tmp_path)) == tmp_path


@pytest.fixture
def lfw(tmp_path: Path) -> Path:
    """Two folds of drawn people: as many genuine as impostor pairs."""
    lines = [f"2\t{PEOPLE // 2}"]
    for person in range(PEOPLE):
        for photo in range(2):
            path = tmp_path / f"P{person}" / f"P{person}_{photo + 1:04d}.png"
            path.parent.mkdir(exist_ok=True)
            write_image(path, crop(person, photo))
    for first in (0, PEOPLE // 2):
        fold = range(first, first + PEOPLE // 2)
        lines += [f"P{p}\t1\t2" for p in fold]
        lines += [f"P{p}\t1\tP{(p + 1) % PEOPLE}\t2" for p in fold]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_first_crops_hold_pairs(lfw: Path) -> None:
    contract = FaceContract(112, 112, embedding_size=8)
    whole, few = lfw_crops(lfw, contract, None), lfw_crops(lfw, contract, 6)
    assert len(whole.images) == 2 * PEOPLE
    assert (few.images == whole.images[:6]).all()
    inside = (few.pairs.a < 6) & (few.pairs.b < 6)
    assert inside.sum() >= 3
    for a, b, same in zip(few.pairs.a, few.pairs.b, few.pairs.same, strict=True):
        drawn = {
            person
            for person in range(PEOPLE)
            for photo in range(2)
            for at in (a, b)
            if (whole.images[at] == crop(person, photo)).all()
        }
        assert (len(drawn) == 1) == same


def test_measures_of_all_crops_only(lfw: Path) -> None:
    crops = lfw_crops(lfw, FaceContract(112, 112, embedding_size=8), None)
    people = np.array(
        [
            next(p for p in range(PEOPLE) for i in range(2) if (image == crop(p, i)).all())
            for image in crops.images
        ]
    )
    right = np.eye(PEOPLE, dtype=np.float32)[people]
    assert crops.measures(right) == {"accuracy": 1.0}  # too few impostors for a TAR
    assert crops.measures(right[:-1]) == {}


def test_cosines_are_of_the_rows_that_both_have() -> None:
    a = np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 2.0]], np.float32)
    b = np.array([[1.0, 0.0], [2.0, 0.0]], np.float32)
    assert cosines(a, b) == pytest.approx([(1 + 0.5**0.5) / 2, 0.5**0.5])
    assert cosines(a, np.zeros_like(a)) == [0.0, 0.0]


CONTRACT = FaceContract(
    SIZE, SIZE, embedding_size=24, mean=(127.5,) * 3, std=(128.0,) * 3, color="BGR"
)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)


def test_a_client_feeds_what_the_contract_says(tmp_path: Path) -> None:
    nodes, weights = backbone()
    head, more = dense(result="out")
    file = save(tmp_path / "net.onnx", [*nodes, *head], {**weights, **more})
    x = ((IMAGES[..., ::-1].astype(np.float32) - 127.5) / 128).transpose(0, 3, 1, 2)
    found = Place().outputs("onnxruntime", file, IMAGES, CONTRACT)
    np.testing.assert_allclose(found["embeddings"], ran(file, x), rtol=1e-4, atol=1e-5)


def test_what_a_client_refuses_is_said(tmp_path: Path) -> None:
    missing = tmp_path / "none.onnx"
    assert "none.onnx" in Place().run("onnxruntime", missing, IMAGES, CONTRACT)["refused"]
    with pytest.raises(SystemExit, match=r"none\.onnx"):
        Place().outputs("onnxruntime", missing, IMAGES, CONTRACT)
    ended = Place((sys.executable, "-c", "raise SystemExit('no such processor')"))
    found = ended.run("onnxruntime", missing, IMAGES, CONTRACT)
    assert found == {"refused": "ends with 1: no such processor"}


def test_codes_that_differ_are_counted() -> None:
    arm = importlib.import_module("arm")
    here = {"first": np.array([[1, 2]], np.uint8), "second": np.array([[0, 250, 9, 9]], np.uint8)}
    assert arm.compared(here, here)["first"] is None
    found = arm.compared(here, {**here, "second": np.array([[0, 253, 9, 8]], np.uint8)})
    assert (found["quantizers"], found["codes"]) == (2, 6)
    assert (found["differing"], found["largest_step"]) == (2, 3)
    assert found["first"] == {"quantizer": "second", "differing": 0.5, "largest_step": 3}


def test_a_clients_guess_is_compared_with_the_contract() -> None:
    judged = importlib.import_module("clients").judged
    crops = SimpleNamespace(measures=lambda rows: {"accuracy": 1.0})
    rows = np.eye(3, dtype=np.float32)
    assert judged({"refused": "no"}, None, rows, CONTRACT, crops) == {"refused": "no"}
    right = judged({"embeddings": rows, "mean": 127.5, "std": 128.0}, rows, rows, CONTRACT, crops)
    assert right["cosine_to_integers"] == right["cosine_to_plain"] == [1.0, 1.0]
    assert "warning" not in right
    wrong = judged({"embeddings": rows, "mean": 0.0, "std": 1.0}, None, rows, CONTRACT, crops)
    assert "guesses" in wrong["warning"]
    broken = judged({"embeddings": rows * np.nan}, None, rows, CONTRACT, crops)
    assert broken["not_finite"]


def test_the_papers_cells_are_taken_from_their_protocols() -> None:
    paper = importlib.import_module("paper_tables")
    accuracy = {"name": "arcface_torch Accuracy-Flip", "teacher": 0.998, "student": 0.9975}
    tar = {"name": "TAR@FAR=0.0001", "teacher": 0.96, "student": 0.955}
    protocols = [
        {"protocol": "lfw pairs", "metrics": [{**tar, "student": 0.1}, accuracy]},
        {"protocol": "IJBC 1:1", "metrics": [tar]},
    ]
    metrics = {"protocols": protocols, "images_used": 14_000, "history": {"seconds": 90.0}}
    assert paper.cells(metrics) == ["99.75", *[""] * 5, "95.50", "14000", "1.5"]
    assert paper.cells(metrics, "teacher") == ["99.80", *[""] * 5, "96.00", "", ""]
    assert paper.cells(None) == [""] * len(paper.HEAD)


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64")
    or not all(map(shutil.which, ("cc", "objdump", "readelf"))),
    reason="needs Linux on x86, cc and binutils",
)
def test_a_masked_library_finds_no_vnni(tmp_path: Path) -> None:
    """It reads cpuid, and the process /proc/cpuinfo, as a processor without VNNI has them."""
    module = importlib.import_module("without_vnni")
    folder, source = tmp_path / "package", tmp_path / "leaf.c"
    folder.mkdir()
    source.write_text(
        "#include <cpuid.h>\n"
        "unsigned leaf(void) { unsigned a, b, c, d; __cpuid_count(7, 0, a, b, c, d);"
        " return (c >> 11 & 1) | (b >> 16 & 1) << 1 | (b >> 5 & 1) << 2; }\n"  # VNNI, AVX-512, AVX2
    )
    library = folder / "leaf.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    plain = int(subprocess.check_output([sys.executable, "-c", LEAF, str(library)]).split()[0])
    assert module.masked(folder) == 1
    environment = {**os.environ, **module.answers(tmp_path)}
    told = subprocess.check_output(
        [sys.executable, "-c", LEAF, str(library)], env=environment, text=True
    )
    assert told.split() == [str(plain & 4), "False"]


LEAF = """
import ctypes, sys
from efquantface.runtime.processor import has_vnni
print(ctypes.CDLL(sys.argv[1]).leaf(), has_vnni())
"""
