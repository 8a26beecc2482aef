"""compare-gallery, with networks and faces made here."""

from __future__ import annotations

import doctest
import json
import stat
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import SmallFaceNet, make_faces, randomize
from efquantface.contract import FaceContract
from efquantface.data.images import write_image
from efquantface.errors import EvaluationError
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.load import load_model
from efquantface.verbs import succession as module
from efquantface.verbs.succession import compare_gallery
from program import efq


@pytest.fixture
def old(tmp_path: Path, network: nn.Module, contract: FaceContract) -> Path:
    write_onnx(load_model(network, contract=contract), tmp_path / "old.onnx")
    return tmp_path / "old.onnx"


@pytest.fixture
def new(tmp_path: Path, contract: FaceContract) -> Path:
    """A network that has nothing in common with the old one."""
    torch.manual_seed(1)
    write_onnx(
        load_model(randomize(SmallFaceNet(), seed=5), contract=contract), tmp_path / "new.onnx"
    )
    return tmp_path / "new.onnx"


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    faces = make_faces(40, 3)
    for name, image in zip(faces.names, faces.images, strict=True):
        path = tmp_path / "sample" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, image)
    return tmp_path / "sample"


def test_codes_of_the_same_model_may_be_mixed(old: Path, sample: Path) -> None:
    found = compare_gallery(old, old, sample, far=0.01, margin=0.2, embedding="int8", quiet=True)
    assert found.verdict.verdict == "may be mixed"
    assert found.models["old"]["sha256"] == found.models["new"]["sha256"]
    assert found.found.moves[0].correlation > 0.999
    undecided = compare_gallery(old, old, sample, far=0.01, quiet=True)
    assert undecided.verdict.verdict == "undecided"  # 40 people do not prove half a point


def test_another_model_is_not_mixed(old: Path, new: Path, sample: Path) -> None:
    found = compare_gallery(old, new, sample, far=0.01, margin=0.01, quiet=True)
    assert found.verdict.verdict != "may be mixed"
    mixed = next(m for m in found.found.moves if (m.pairs, m.scores) == ("genuine", "mixed"))
    assert abs(mixed.mean) < 0.5
    case = found.found.case("mixed: new probes, old enrolments")
    assert case is not None
    assert case.rise.share > 0.1
    example = found.as_dict()["examples"][0]
    assert example["a"].startswith("person")


def test_a_sample_of_some_images(old: Path, sample: Path) -> None:
    found = compare_gallery(old, old, sample, far=0.01, max_images=60, quiet=True)
    assert found.found.images == 60
    (sample / found.names[0]).write_bytes(b"no image")
    again = compare_gallery(old, old, sample, far=0.01, max_images=60, quiet=True)
    assert again.names == found.names[1:]


def test_the_verb(
    old: Path, new: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "decision.json"
    words = ("compare-gallery", old, new, "--sample", sample)
    assert efq(*words, "--far", "0.01", "-o", out) == 0
    shown = capsys.readouterr().out
    written = json.loads(out.read_text())
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert f"The gallery: {written['verdict']}" in shown
    assert "Rule: A way to go on fits where" in shown
    assert f"NEW {written['thresholds']['new']:.4f}" in shown
    assert efq(*words, "-o", out) == 2
    assert "exists" in capsys.readouterr().err
    assert efq(*words, "--far", "0.01", "--threshold", "0.5") == 2
    assert "not both" in capsys.readouterr().err
    assert efq(*words, "--far", "1e-7") == 2
    assert "30,000,000 impostor pairs" in capsys.readouterr().err
    assert efq(*words, "--margin", "2") == 2
    assert "margin" in capsys.readouterr().err
    assert efq(*words, "--threshold", "0.99", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["threshold"] is not None


def test_faces_without_names(old: Path, sample: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sample.rglob("*.png"):
        path.rename(flat / path.name)
    with pytest.raises(EvaluationError, match="--threshold"):
        compare_gallery(old, old, flat, quiet=True)
    found = compare_gallery(old, old, flat, threshold=0.985, margin=0.5, quiet=True)
    assert found.verdict.verdict == "may be mixed"
    assert "images without names" in found.lines()[0]


def test_examples(
    old: Path, faces_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new.onnx").write_bytes(old.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(module).failed == 0
