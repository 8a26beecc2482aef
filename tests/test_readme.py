"""The README's commands and its Python block run, on small stand-ins of our own making."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import SmallFaceNet, randomize
from drawn import crop, portrait
from efquantface.contract import FaceContract
from efquantface.data.detect import detector_available
from efquantface.data.images import write_image
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.load import load_model
from foreign_nets import ArcFaceMbf
from program import efq
from project import PYPROJECT, ROOT

PEOPLE, PHOTOS = 8, 2
CONTRACT = FaceContract(112, 112, 512)


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """Every shell line of the README as words, without comments."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return randomize(SmallFaceNet(512, 112))


def people(root: Path) -> None:
    """Aligned crops, a subfolder a person, named as LFW names them."""
    for person in range(PEOPLE):
        for photo in range(PHOTOS):
            name = f"P{person}"
            (root / name).mkdir(parents=True, exist_ok=True)
            write_image(root / name / f"{name}_{photo + 1:04d}.png", crop(person, photo))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the README's names stand for; the working directory, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EFQ_CACHE", str(tmp_path / "cache"))
    write_onnx(load_model(network(), contract=CONTRACT), tmp_path / "teacher.onnx")
    people(tmp_path / "LFW")
    half = PEOPLE // 2
    pairs = [f"2\t{half}"]
    for first in (0, half):  # two folds of so many genuine and impostor pairs
        pairs += [f"P{p}\t1\t2" for p in range(first, first + half)]
        pairs += [f"P{p}\t1\tP{(p + 1) % PEOPLE}\t2" for p in range(first, first + half)]
    (tmp_path / "LFW" / "pairs.txt").write_text("\n".join(pairs) + "\n")
    rows = ["a,b,same"]
    for p in range(PEOPLE):
        other = (p + 1) % PEOPLE
        rows.append(f"LFW/P{p}/P{p}_0001.png,LFW/P{p}/P{p}_0002.png,1")
        rows.append(f"LFW/P{p}/P{p}_0001.png,LFW/P{other}/P{other}_0002.png,0")
    (tmp_path / "PAIRS.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_shell_lines_are_of_known_programs() -> None:
    """`make` and `pip install` lines name targets and extras that exist; they are not run."""
    known = set(PYPROJECT["project"]["optional-dependencies"])
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    programs = set()
    for words in commands():
        programs.add(words[0])
        if words[0] == "make":
            assert set(words[1:]) <= set(targets)
        elif words[0] == "pip":
            assert words[1] == "install"
            extras = re.findall(r"\[([^]]*)\]", " ".join(words))
            assert {e for group in extras for e in group.split(",")} <= known
    assert programs == {"make", "pip", "efq"}


def test_commands_run_in_their_order(place: Path) -> None:
    for person in range(PEOPLE):
        for photo in range(PHOTOS):
            path = place / "PHOTOS" / f"P{person}" / f"{photo}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, portrait(person, photo))
    torch.save(randomize(ArcFaceMbf((1, 4, 6, 2), scale=2)).state_dict(), "backbone.pth")
    seen = set()
    for words in commands():
        if words[0] != "efq":
            continue
        seen.add(words[1])
        if words[1] == "align" and not detector_available():
            people(place / "FACES")  # its package has no wheel for every Python
            continue
        assert efq(*words[1:]) == 0, words
    assert {"align", "compress", "evaluate", "embed"} <= seen
    assert len(list((place / "FACES").rglob("*.png"))) == PEOPLE * PHOTOS
    for name in ("student.onnx", "student.safetensors", "metrics.json", "report.html",
                 "recipe.yaml", "env.json", "log.txt"):  # fmt: skip
        assert (place / "RUN" / name).is_file()
    with np.load(place / "embeddings.npz") as stored:
        assert stored["embeddings"].shape == (PEOPLE * PHOTOS, 512)


def test_python_block_runs(place: Path) -> None:
    people(place / "FACES")
    people(place / "PEOPLE")
    (block,) = blocks("python")
    faces = np.stack([crop(person) for person in range(PEOPLE)])
    names = {"my_module": network(), "faces": faces}
    exec(compile(block, "README.md", "exec"), names)
    assert names["embeddings"].shape == (PEOPLE, 512)
    assert (place / "RUN" / "student.onnx").is_file()
