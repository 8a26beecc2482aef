"""Small networks around one pattern, and the students that come of them."""

from __future__ import annotations

import torch
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Bits, Scheme

# how a network goes the whole way in a second, whatever its weights
FAST = {
    "quiet": True,
    "benchmark": False,
    "cache": False,
    "bits": "w8a8",
    "epochs": 0,
    "anyway": True,
}


class Pattern(nn.Module):
    """Stem, the pattern under test, embedding."""

    def __init__(self, body: nn.Module, channels: int = 8, residual: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.body, self.residual = body, residual
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        y = self.body(x)
        return self.fc(torch.flatten(self.pool(x + y if self.residual else y), 1))


def student_of(
    module: nn.Module,
    contract: FaceContract,
    bits: str = "w8a8",
    symmetric: bool = False,
    full_range: bool = False,
) -> tuple[FaceModel, FaceModel]:
    torch.manual_seed(0)
    teacher = load_model(module.eval(), contract=contract)
    student = quantize(
        teacher, Scheme(Bits.parse(bits), symmetric=symmetric, full_range=full_range)
    )
    faces = make_faces().images
    set_ranges(student.graph, [torch.from_numpy(contract.pixels(faces))])
    return teacher, student
