"""What efq inspect says of float networks, students, refused files, and with faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from conftest import make_faces, randomize
from efquantface.backbones.iresnet import IResNet
from efquantface.backbones.registry import BACKBONES
from efquantface.cli.main import app
from efquantface.contract import PREPROCESS, FaceContract
from efquantface.errors import ModelFileError
from efquantface.export.onnx_writer import write_onnx
from efquantface.graph.checkpoint import save_checkpoint
from efquantface.importers.load import load_model
from efquantface.pipeline.compress import compress
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme
from efquantface.verbs.describe import describe_backbones
from efquantface.verbs.inspect import describe_model
from face_files import SIZE, backbone, dense, node, save


def test_a_checkpoint(tmp_path: Path) -> None:
    torch.save(randomize(IResNet(18, 64)).state_dict(), tmp_path / "backbone.pth")
    text = "\n".join(describe_model(tmp_path / "backbone.pth", layers=True).lines)
    assert "million multiply-accumulates" in text
    assert "8 affine" in text
    assert "112x112 RGB, (x - 127.5) / 127.5" in text
    assert "recognized by its tensors' names: arcface_torch" in text
    assert "layer1_0_conv1" in text
    assert "64x112x112" in text


def test_faces_tell_the_preprocessing(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces_dir: Path
) -> None:
    write_onnx(load_model(network, contract=contract), tmp_path / "m.onnx")
    lines = describe_model(tmp_path / "m.onnx", faces=faces_dir).lines
    tried = lines[lines.index(next(li for li in lines if li.startswith("tried on 48 faces"))) + 1 :]
    assert {line.split("  ")[1].strip() for line in tried} >= {"as found", "adaface", "raw", "unit"}
    found = [float(line[17:23]) for line in tried]
    assert found == sorted(found, reverse=True)
    assert len(found) == len(PREPROCESS)  # its own is one of them


def test_a_student_and_its_file(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces_dir: Path
) -> None:
    student = quantize(load_model(network, contract=contract), Scheme())
    set_ranges(student.graph, [torch.rand(4, 3, 32, 32) * 255])
    write_onnx(student, tmp_path / "s.onnx")
    text = "\n".join(describe_model(tmp_path / "s.onnx").lines)
    assert "quantized already" in text
    assert "matrix products run in int8" in text
    save_checkpoint(student, tmp_path / "s.safetensors")
    assert "quantized student" in "\n".join(describe_model(tmp_path / "s.safetensors").lines)
    with pytest.raises(ModelFileError, match="give the teacher"):
        describe_model(tmp_path / "s.safetensors", faces=faces_dir)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ([node("Relu", ["e"], "out")], ""),
        ([node("LpNormalization", ["e"], "out", axis=1, p=2)], ""),
        ([node("Atan", ["e"], "out")], "Atan"),
        ([node("Mul", ["e", "zero"], "out")], "does not depend on the crop"),
    ],
)
def test_it_says_what_compress_will_do(end: list, why: str, tmp_path: Path) -> None:
    """By the same checks, before any face is at hand."""
    (start, a), (layer, b) = backbone(), dense()
    path = save(tmp_path / "m.onnx", [*start, *layer, *end], {**a, **b, "zero": np.float32(0)})
    found = describe_model(path)
    assert found.numbers["compressible"] == (not why)
    assert ("can be compressed" in found.lines) == (not why)
    assert ("cannot be compressed" in "\n".join(found.lines)) == bool(why)
    options = {"epochs": 0, "quiet": True, "anyway": True, "benchmark": False, "cache": False}
    faces = make_faces(6, 4, SIZE)
    if not why:
        assert compress(path, faces, tmp_path / "run", **options).run.onnx.is_file()
        return
    assert why in found.numbers["unsupported"]
    with pytest.raises(ModelFileError) as caught:
        compress(path, faces, tmp_path / "run", **options)
    assert str(caught.value) == found.numbers["unsupported"]


def test_height_and_width_come_from_the_faces(tmp_path: Path, faces_dir: Path) -> None:
    start, own = backbone()
    end = [node("GlobalAveragePool", ["map"], "p"), node("Flatten", ["p"], "out")]
    path = save(tmp_path / "m.onnx", [*start, *end], own, shape=("n", 3, "h", "w"))
    assert describe_model(path).numbers["contract"]["height"] == 112
    assert describe_model(path, size=(48, 40)).numbers["contract"]["width"] == 40
    found = describe_model(path, faces=faces_dir)
    assert found.numbers["contract"]["height"] == 32
    run = CliRunner().invoke(app, ["inspect", str(path), "--size", "64"])
    assert "64x64" in run.output
    wrong = CliRunner().invoke(app, ["inspect", str(path), "--size", "big"])
    assert wrong.exit_code
    assert "HEIGHTxWIDTH" in wrong.output + str(wrong.exception)


def test_backbones_are_listed() -> None:
    lines = describe_backbones()
    assert [line.split()[0] for line in lines] == list(BACKBONES)
    assert "65.2 M parameters  12,090 M MACs  112x112 RGB -> 512" in "\n".join(lines)


def test_the_verbs(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces_dir: Path
) -> None:
    write_onnx(load_model(network, contract=contract), tmp_path / "m.onnx")
    run = CliRunner()
    shown = run.invoke(app, ["inspect", str(tmp_path / "m.onnx")])
    assert shown.exit_code == 0, shown.output
    assert "contract:" in shown.output
    out = tmp_path / "e.npz"
    done = run.invoke(app, ["embed", str(tmp_path / "m.onnx"), str(faces_dir), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "48 embeddings in" in done.output
