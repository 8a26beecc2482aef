"""Checkpoints come back as they were, those of format 1 too; damaged and later ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.errors import ModelFileError
from efquantface.graph import ops
from efquantface.graph.checkpoint import load_checkpoint, save_checkpoint
from efquantface.graph.graph import specs_of
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme
from efquantface.quantize.vocabulary import OPERATORS

OLD_TENSORS = {
    ".log_scale": ".log_step",
    ".zero_share": ".zero",
    ".input_scale": ".input_step",
    ".min_scale": ".min_step",
}


@pytest.fixture
def pixels(contract: FaceContract) -> torch.Tensor:
    return torch.from_numpy(contract.pixels(make_faces().images))


@pytest.fixture
def student(network: nn.Module, contract: FaceContract, pixels: torch.Tensor) -> FaceModel:
    made = quantize(load_model(network, contract=contract), Scheme())
    set_ranges(made.graph, [pixels])
    return made


def test_float_network_and_student_come_back(
    tmp_path: Path,
    network: nn.Module,
    contract: FaceContract,
    student: FaceModel,
    pixels: torch.Tensor,
) -> None:
    for model, vocabulary in (
        (load_model(network, contract=contract), ops.OPERATORS),
        (student, OPERATORS),
    ):
        save_checkpoint(model, tmp_path / "m.safetensors")
        again = load_checkpoint(tmp_path / "m.safetensors", vocabulary)
        assert again.contract == contract
        assert again.quantized == model.quantized
        assert torch.equal(again.embed_pixels(pixels), model.embed_pixels(pixels))


def test_a_student_needs_the_vocabulary_of_students(tmp_path: Path, student: FaceModel) -> None:
    save_checkpoint(student, tmp_path / "s.safetensors")
    with pytest.raises(ModelFileError, match=r"'input_quantizer'.*not known"):
        load_checkpoint(tmp_path / "s.safetensors", ops.OPERATORS)


def test_format_one_is_still_read(tmp_path: Path, student: FaceModel, pixels: torch.Tensor) -> None:
    path, old = tmp_path / "s.safetensors", tmp_path / "old.safetensors"
    save_checkpoint(student, path)
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    graph = json.loads(metadata["efquantface.graph"])
    renamed = 0
    for node in graph["nodes"]:
        for kind, name, was in (
            ("input_quantizer", "scale", "step"),
            ("quant_affine", "nonpositive", "falling"),
        ):
            if node["kind"] == kind:
                node["attrs"][was] = node["attrs"].pop(name)
                renamed += 1
    assert renamed > 1
    tensors = {}
    for key, value in load_file(path).items():
        for name, was in OLD_TENSORS.items():
            key = key.removesuffix(name) + was if key.endswith(name) else key
        tensors[key] = value
    assert not set(tensors) & {k for k in load_file(path) if k.endswith(tuple(OLD_TENSORS))}
    metadata |= {"efquantface.format": "1", "efquantface.graph": json.dumps(graph)}
    save_file(tensors, old, metadata)
    again = load_checkpoint(old, OPERATORS)
    assert torch.equal(again.embed_pixels(pixels), student.embed_pixels(pixels))
    assert specs_of(again.graph) == specs_of(student.graph)


def test_damaged_and_later_files(tmp_path: Path, student: FaceModel) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(student, path)
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ModelFileError, match="cut"):
        load_checkpoint(tmp_path / "cut.safetensors", OPERATORS)
    save_file(load_file(path), tmp_path / "later.safetensors", {"efquantface.format": "99"})
    with pytest.raises(ModelFileError, match="format 99"):
        load_model(tmp_path / "later.safetensors")
