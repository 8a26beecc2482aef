"""LiteRT computes every kind of block, and islands of float, in one part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import SIZE, make_faces
from efquantface.contract import FaceContract
from efquantface.embedding.embedder import Embedder
from efquantface.formats.delivery import deliver
from efquantface.formats.table import FORMATS
from efquantface.graph import ops
from efquantface.graph.graph import INPUT, GraphBuilder
from efquantface.graph.model import FaceModel
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Bits, Scheme
from students import Pattern, student_of

FACES = make_faces().images[:8]


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        small = torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.excite(small))


def delivered(model: FaceModel, folder: Path) -> list[str]:
    return deliver(model, FORMATS["tflite"], folder / "model.tflite")


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "squeeze and excitation": SqueezeExcite,
    "hard swish": lambda: nn.Hardswish(),
    "swish": lambda: nn.SiLU(),
    "average, zeros counted": lambda: nn.AvgPool2d(3, 2, 1),
    "average, zeros left out": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "average, windows over the end": lambda: nn.AvgPool2d(3, 2, ceil_mode=True),
    "maximum, padded": lambda: nn.MaxPool2d(3, 2, 1),
    "maximum, windows over the end": lambda: nn.MaxPool2d(2, 3, ceil_mode=True),
    "every other place": lambda: nn.MaxPool2d(1, 2),
    "places between windows": lambda: nn.MaxPool2d((2, 1), (3, 2), (1, 0)),
    "depthwise 5x5, stride 2": lambda: nn.Conv2d(8, 8, 5, 2, 2, groups=8),
    "groups": lambda: nn.Conv2d(8, 8, 3, 1, 1, groups=2),
    "depthwise, twice as many": lambda: nn.Sequential(
        nn.Conv2d(8, 16, 3, 1, 1, groups=8), nn.Conv2d(16, 8, 1)
    ),
    "dilated": lambda: nn.Conv2d(8, 8, 3, 1, 2, dilation=2),
    "norm alone": lambda: nn.BatchNorm2d(8),
    "norm of groups": lambda: nn.GroupNorm(2, 8),
    "gelu": lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.GELU()),
    "elu": lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.ELU(0.7)),
    "mish": lambda: nn.Mish(),
    "limits that are no codes": lambda: nn.Hardtanh(-1, 0.7),
    "nearest neighbour": lambda: nn.Upsample(scale_factor=2),
    "mirrored border": lambda: nn.ReflectionPad2d(1),
    "zeros on one side": lambda: nn.ZeroPad2d((1, 0, 0, 2)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_block(tmp_path: Path, contract: FaceContract, name: str) -> None:
    """Float, 8 bits and 4 bits of every kind of block pass the check: one part, the same codes."""
    torch.manual_seed(0)
    body = BLOCKS[name]()
    residual = name in ("squeeze and excitation", "groups", "norm alone")
    teacher, student = student_of(Pattern(body, 8, residual), contract)
    _, narrow = student_of(Pattern(body, 8, residual), contract, "w4a4")
    for model in (teacher, student, narrow):
        assert len(delivered(model, tmp_path)) == 4


def _tokens(out: int = 16) -> FaceModel:
    """Attention over a map's places, and linear layers over its last axis."""
    builder, at = GraphBuilder(), INPUT
    steps: list[tuple[str, nn.Module]] = [
        ("norm", ops.Normalize([127.5] * 3, [127.5] * 3)),
        ("stem", ops.Conv2d(3, 6, 4, 4)),
        ("line", ops.Reshape((6, (SIZE // 4) ** 2))),
        ("last", ops.Transpose((0, 2, 1))),
        ("layer_norm", ops.LayerNorm(6, 1e-6)),
        ("first", ops.Linear(6, 12)),
        ("gelu", ops.Gelu()),
        ("second", ops.Linear(12, 6)),
    ]
    for name, module in steps:
        at = builder.add(name, module, at)
    turned = builder.add("turned", ops.Transpose((0, 2, 1)), at)
    weights = builder.add("weights", ops.MatMul(), turned, at)
    weights = builder.add("soft", ops.Softmax(), builder.add("less", ops.Scale(()), weights))
    mixed = builder.add("mixed", ops.MatMul(), weights, turned)
    both = builder.add("both", ops.Concat(1), turned, mixed)
    back = builder.add("map", ops.Reshape((12, SIZE // 4, SIZE // 4)), both)
    at = builder.add("deep", ops.Conv2d(12, 8, 3, padding=1), back)
    at = builder.add(
        "fc",
        ops.Linear(8, out),
        builder.add("flat", ops.Flatten(), builder.add("pool", ops.GlobalAvgPool(), at)),
    )
    unit = builder.add("unit", ops.L2Normalize(1e-12), at)
    gm = builder.finish(unit)
    with torch.no_grad():
        for parameter in gm.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    return FaceModel(gm, FaceContract(SIZE, SIZE, out, template="unknown"))


def test_islands_of_float_stay_in_one_part(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = _tokens()
    student = quantize(teacher, Scheme(Bits.parse("w8a8")))
    set_ranges(student.graph, [torch.from_numpy(teacher.contract.pixels(FACES))])
    for model in (teacher, student):
        delivered(model, tmp_path)
        right = model.embed_pixels(torch.from_numpy(model.contract.pixels(FACES))).numpy()
        found = Embedder.open(tmp_path / "model.tflite").embed(FACES)
        assert (found * right).sum(1).min() > 0.9995
