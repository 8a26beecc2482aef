"""Every shell and Python block of README and docs runs, on small stand-ins of our own making.

What differs from the page: names stand for drawn faces and small networks; outside of the README
``efq compress`` runs without training and timing; a run that is in the way is removed;
``compare-gallery`` takes a threshold that fits untrained networks.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

from blocks import Block, blocks, efq_commands, expanded, pages, without_assignments
from conftest import SmallFaceNet, randomize
from drawn import crop, portrait
from efquantface.cli.main import app
from efquantface.contract import FaceContract
from efquantface.data.detect import detector_available
from efquantface.data.images import write_image
from efquantface.errors import FinishedError
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.load import load_model
from foreign_nets import ArcFaceMbf
from formats import png, write_rec, write_tar
from program import efq
from project import PYPROJECT, ROOT

PEOPLE, PHOTOS = 8, 2
STRICT = "0.999"
QUICK = ("--no-finetune", "--no-benchmark", "--calibration-images", "8")
CONTRACT = FaceContract(112, 112, 512)
CHECKED = [page for page in pages() if any(b.language in ("sh", "python") for b in blocks(page))]


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return randomize(SmallFaceNet(512, 112), seed)


def people(root: Path) -> None:
    """Aligned crops, a subfolder a person, named as LFW names them."""
    for person in range(PEOPLE):
        for photo in range(PHOTOS):
            name = f"P{person}"
            (root / name).mkdir(parents=True, exist_ok=True)
            write_image(root / name / f"{name}_{photo + 1:04d}.png", crop(person, photo))


def lists(root: Path) -> None:
    """LFW's list of two folds, and the same pairs as a CSV file."""
    half = PEOPLE // 2
    pairs, rows = [f"2\t{half}"], ["a,b,same"]
    for first in (0, half):  # so many genuine and impostor pairs a fold
        pairs += [f"P{p}\t1\t2" for p in range(first, first + half)]
        pairs += [f"P{p}\t1\tP{(p + 1) % PEOPLE}\t2" for p in range(first, first + half)]
    for p in range(PEOPLE):
        other = (p + 1) % PEOPLE
        rows.append(f"LFW/P{p}/P{p}_0001.png,LFW/P{p}/P{p}_0002.png,1")
        rows.append(f"LFW/P{p}/P{p}_0001.png,LFW/P{other}/P{other}_0002.png,0")
    (root / "LFW" / "pairs.txt").write_text("\n".join(pairs) + "\n")
    (root / "PAIRS.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the documents' names stand for: small networks, drawn faces, a run."""
    root = tmp_path_factory.mktemp("stand_ins")
    write_onnx(load_model(network(), contract=CONTRACT), root / "teacher.onnx")
    for name in ("OLD.onnx", "buffalo_l/w600k_mbf.onnx"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / "teacher.onnx", root / name)
    write_onnx(load_model(network(1), contract=CONTRACT), root / "NEW.onnx")
    torch.save(randomize(ArcFaceMbf((1, 1, 1, 1), scale=1)).state_dict(), root / "backbone.pth")
    for name in ("FACES", "LFW", "PEOPLE", "EVAL"):
        people(root / name)
    lists(root)
    for person in range(PEOPLE):
        for photo in range(PHOTOS):
            path = root / "PHOTOS" / f"P{person}" / f"{photo}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, portrait(person, photo))
    images = [png(crop(person, photo)) for person in range(PEOPLE) for photo in range(PHOTOS)]
    write_rec(root / "train.rec", images, [i // PHOTOS for i in range(len(images))])
    (root / "shards").mkdir()
    for shard in range(4):
        members = [(f"{i:04d}.png", images[i]) for i in range(4 * shard, 4 * shard + 4)]
        write_tar(root / "shards" / f"{shard}.tar", members)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(root)
        patched.setenv("EFQ_CACHE", str(root / "cache"))
        words = "compress teacher.onnx FACES --no-finetune --no-benchmark --eval lfw=LFW -o RUN"
        assert efq(*words.split()) == 0
    return root


@pytest.fixture
def place(stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the stand-ins as the working directory."""
    root = tmp_path / "place"
    shutil.copytree(stand_ins, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("EFQ_CACHE", str(root / "cache"))
    return root


@pytest.mark.parametrize("page", CHECKED)
def test_page(page: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = np.stack([crop(person) for person in range(PEOPLE)])
    names: dict[str, Any] = {"my_module": network(), "faces": faces, "crops": faces}
    for block in blocks(page):
        if block.mark == "unchecked":
            continue
        if block.language == "sh":
            for words in block.lines():
                if block.mark:
                    parse(words, block, monkeypatch)
                else:
                    run(words, block, place)
        elif block.language == "python":
            exec(compile(block.text, block.place, "exec"), names)
        elif block.language == "json":
            json.loads(block.text)


def run(words: list[str], block: Block, place: Path) -> None:
    """A command that ends well; of other programs than ``efq``, one that names what is there."""
    if words[0] != "efq":
        named(words, block)
        return
    if words[1] == "align" and not detector_available():
        people(place / words[words.index("-o") + 1])  # its package has no wheel for every Python
        return
    if words[1] == "compress" and "--resume" not in words:  # the stand-in gives way
        shutil.rmtree(place / words[words.index("-o") + 1], ignore_errors=True)
        if block.page != "README.md" and "--epochs" not in words:
            words = [*words, *QUICK]
    if words[1] == "compare-gallery":  # untrained networks find strangers alike: a stricter one
        words = [STRICT if word == "0.4" else word for word in words]
    arguments = expanded(words[1:], place)
    assert efq(*arguments) == 0, f"{block.place}: {' '.join(words)}"


def parse(words: list[str], block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line takes the words; of ``compress`` the recipe is made, too."""
    for arguments in efq_commands(words):
        command: Any = typer.main.get_command(app)
        rest = list(arguments)
        while hasattr(command, "commands"):
            command = command.commands[rest.pop(0)]
        command.make_context(command.name, rest)
        if arguments[0] == "compress":
            with monkeypatch.context() as patched:
                patched.setattr("efquantface.pipeline.paths.check_inputs", lambda _: None)
                patched.setattr("efquantface.pipeline.compress.compress", _not_run)
                assert efq(*arguments) == 0, f"{block.place}: {' '.join(words)}"


def _not_run(*_: object, **__: object) -> None:
    raise FinishedError("parsed")


def named(words: list[str], block: Block) -> None:
    """What a command of another program names is there: targets, extras, files."""
    words = without_assignments(words)
    if not words:
        return
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets), block.place
    elif words[0] == "pip":
        assert words[1] == "install", block.place
        extras = re.findall(r"\[([^]]*)\]", " ".join(words))
        known = set(PYPROJECT["project"]["optional-dependencies"])
        assert {e for group in extras for e in group.split(",")} <= known, block.place
    elif words[0] == ".ci/run":
        assert (ROOT / words[0]).is_file()
    else:
        pytest.fail(f"{block.place}: {words[0]} is not checked; mark the block with its reason")


def test_every_mark_has_a_meaning() -> None:
    """What is not run is listed here, page by page, with its reason."""
    marked = [block for page in pages() for block in blocks(page) if block.mark]
    assert {block.mark for block in marked} <= {"parsed", "unchecked"}
    assert all(block.language in ("sh", "python") for block in marked)
    parsed = [block for block in marked if block.mark == "parsed"]
    assert all(any(map(efq_commands, block.lines())) for block in parsed)
    for block in marked:
        print(f"{block.place} {block.mark}: {block.reason}")
    unchecked = [block for block in marked if block.mark == "unchecked"]
    total = [block for page in CHECKED for block in blocks(page)]
    assert len(unchecked) <= 0.1 * len(total)


def test_no_block_escapes() -> None:
    """A fence has a language that is checked, or one that holds no code."""
    languages = {block.language for page in pages() for block in blocks(page)}
    assert languages <= {"sh", "python", "json", "text", ""}
    for page in pages():
        text = (ROOT / page).read_text(encoding="utf-8")
        assert 2 * len(blocks(page)) == len(re.findall(r"^ *```", text, re.MULTILINE)), page
        plain = [block for block in blocks(page) if block.language in ("text", "")]
        assert [b.place for b in plain if re.search(r"^\s*\$?\s*efq ", b.text, re.MULTILINE)] == []


def test_the_readme_makes_a_run(place: Path) -> None:
    """Its own network in three commands gives what getting started says a run's folder holds."""
    (block,) = (b for b in blocks("README.md") if "efq align" in b.text)
    for words in block.lines():
        run(words, block, place)
    text = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")
    table = text[text.index("## What is in the run's folder") : text.index("## When a run stops")]
    said = set(re.findall(r"`([\w.]+\.\w+)`", "\n".join(re.findall(r"^\| (`.*?) \|", table, re.M))))
    assert len(said) == 8
    there = {path.name for path in (place / "RUN").iterdir()}
    assert said <= there <= said | {".lock", "inputs.json"}
