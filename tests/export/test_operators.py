"""Which patterns ONNX Runtime runs in integers, and that they compute the student."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.export.onnx_writer import write_onnx
from efquantface.export.operators import executed
from efquantface.export.parity import check_parity
from efquantface.graph import ops
from students import Pattern, student_of


def slopes(most: float) -> nn.PReLU:
    prelu = nn.PReLU(8)
    prelu.weight.data = torch.linspace(-1.55, most, 8)
    return prelu


torch.manual_seed(0)  # of the patterns' weights


PATTERNS: dict[str, tuple[nn.Module, dict[str, int], dict[str, object]]] = {
    "conv": (nn.Conv2d(8, 8, 3, padding=1), {"QLinearConv": 2}, {}),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), {"QLinearConv": 2}, {}),
    "7x7 depthwise": (nn.Conv2d(8, 8, 7, groups=8), {"QLinearConv": 2}, {}),
    "conv relu6": (nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU6()), {"QLinearConv": 2}, {}),
    "add": (nn.Conv2d(8, 8, 1), {"QLinearConv": 2, "QLinearAdd": 1}, {"residual": True}),
    "prelu": (
        nn.Sequential(nn.Conv2d(8, 8, 1), slopes(1)),
        {"QLinearConv": 3, "QLinearAdd": 1, "Clip": 0},
        {},
    ),
    "steep prelu": (
        nn.Sequential(nn.Conv2d(8, 8, 1), slopes(2.39)),
        {"QLinearConv": 3, "QLinearAdd": 1, "Clip": 1},
        {},
    ),
    "pre-batchnorm": (
        nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)),
        {"QLinearConv": 3},
        {},
    ),
    "max pool": (nn.MaxPool2d(3, 2, 1), {"QLinearConv": 1}, {}),
    "average pool": (nn.AvgPool2d(2), {"QLinearConv": 1, "QLinearAveragePool": 1}, {}),
    "zero pad": (ops.ZeroPad(4, bottom=1, right=1), {"QLinearConv": 1, "Pad": 1}, {"channels": 12}),
}


UNPACKING = {"BitShift", "BitwiseAnd", "Cast", "Concat", "Reshape", "Split"}  # folded at load


@pytest.mark.parametrize(
    "kind", ["w8a8", "w6a8", "w4a8", "w4a4", "w8a8 symmetric", "w6a6 symmetric"]
)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_pattern_runs_in_integers(
    pattern: str, kind: str, tmp_path: Path, contract: FaceContract
) -> None:
    body, wanted, options = PATTERNS[pattern]
    bits, _, symmetric = kind.partition(" ")
    module = Pattern(body, **options)  # type: ignore[arg-type]
    teacher, student = student_of(module, contract, bits, bool(symmetric))
    path = tmp_path / "student.onnx"
    write_onnx(student, path)
    found = executed(path, signed_integers=bool(symmetric))
    counts = found.counts
    if not symmetric:  # whether signed codes run in integers is the processor's affair
        assert found.convolutions == found.integer_convolutions
        assert found.products == found.integer_products == 1
        # one Add shifts the pixels before they are quantized
        assert not (set(found.in_float) - {"Add"}) | (UNPACKING & set(counts)), counts
        assert counts["Add"] == 1
        assert counts["QGemm"] == 1
    if kind in ("w8a8", "w6a8", "w4a8"):  # otherwise integer Clips come on top
        for op, count in wanted.items():
            assert counts.get(op, 0) == count, counts
    faces = make_faces(seed=3).images
    embeddings = teacher.embed_pixels(torch.from_numpy(contract.pixels(faces))).numpy()
    parity = check_parity(student, path, faces, embeddings)
    assert parity.problems == []
    assert parity.embedding_error < 1e-6
    assert parity.cosine > (0.9999 if symmetric else 0.999999)
    assert parity.fake_quantized_cosine > 0.999
