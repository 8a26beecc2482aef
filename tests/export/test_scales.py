"""The float network and the scales for other converters give the student's own integers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.embedding.embedder import Embedder
from efquantface.export.scales import float_form, write_scales
from efquantface.graph.graph import module_nodes, name_of
from efquantface.quantize.layers import QuantConv2d, QuantLinear
from students import student_of


@pytest.mark.parametrize("symmetric", [False, True])
def test_scales_rebuild_the_integers(
    tmp_path: Path, network: nn.Module, contract: FaceContract, symmetric: bool
) -> None:
    """The float network computes the student but for its activations' rounding; scales give codes."""
    _, student = student_of(network, contract, "w4a8", symmetric)
    beside = write_scales(student, tmp_path / "out.onnx")
    found = json.loads(beside.read_text())
    faces = make_faces().images
    by_student = student.embed_pixels(torch.from_numpy(contract.pixels(faces))).numpy()
    by_float = Embedder.open(tmp_path / "out.onnx").embed(faces)
    cosine = (by_float * by_student).sum(1) / np.linalg.norm(by_float, axis=1)
    assert (cosine / np.linalg.norm(by_student, axis=1)).mean() > 0.999
    floating = {name_of(n): m for n, m in module_nodes(float_form(student).graph)}
    for node, module in module_nodes(student.graph):
        if isinstance(module, QuantConv2d | QuantLinear):
            entry = found["weights"][name_of(node)]
            step = torch.tensor(entry["scales"]).view(-1, *(1,) * (module.weight.dim() - 1))
            codes, _ = module.weight_codes()
            assert torch.equal((floating[name_of(node)].weight / step).round(), codes.float())
    assert all(entry["signed"] is symmetric for entry in found["activations"].values())
