"""Signed codes: which layers ONNX Runtime runs in integers depends on the outputs that are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import Bottleneck, randomize
from efquantface.contract import FaceContract
from efquantface.export.onnx_writer import write_onnx
from efquantface.export.parity import check_layers
from students import student_of


class Bottlenecks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.PReLU(8))
        self.blocks = nn.Sequential(*(Bottleneck(8, 16) for _ in range(3)))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))


@pytest.mark.parametrize("seed", [3, 5, 7])
def test_values_on_an_edge_are_no_fault(seed: int, tmp_path: Path, contract: FaceContract) -> None:
    torch.manual_seed(seed)
    _, student = student_of(randomize(Bottlenecks(), seed), contract, symmetric=True)
    write_onnx(student, tmp_path / "s.onnx")
    parity = check_layers(student, tmp_path / "s.onnx", 32)
    assert parity.problems == []
    assert parity.embedding_error < 1e-5
