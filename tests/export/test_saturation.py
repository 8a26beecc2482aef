"""16-bit sums of machines without VNNI: where they can saturate, and what exact sums need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from torch import nn

from efquantface.contract import FaceContract
from efquantface.export import saturation
from efquantface.export.onnx_writer import write_onnx
from students import student_of


def test_saturation_is_found_where_it_can_happen(
    network: nn.Module, contract: FaceContract
) -> None:
    _, eight = student_of(network, contract, "w8a8")
    _, seven = student_of(network, contract, "w7a8")
    named = saturation.saturating_layers(eight)
    assert named
    assert not any("tail" in name for name in named)  # depthwise
    assert saturation.saturating_layers(seven) == []
    assert "w7a8" in saturation.describe(eight)
    assert "session.x64quantprecision=1" in saturation.describe(eight)
    assert "cannot" in saturation.describe(seven)


def test_layers_that_can_saturate_have_zero_points_of_their_own(
    tmp_path: Path, network: nn.Module, contract: FaceContract
) -> None:
    """ONNX Runtime's exact sums replace a layer's zero points; shared ones would be replaced twice."""
    _, student = student_of(network, contract)
    write_onnx(student, tmp_path / "student.onnx")
    model = onnx.load(str(tmp_path / "student.onnx"))
    values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    read = [n for n in model.graph.node if n.op_type == "DequantizeLinear"]
    large = [n for n in read if values.get(n.input[0], np.zeros(1)).dtype == np.int8]
    large = [n for n in large if np.abs(values[n.input[0]].astype(int)).max() > 64]
    assert large
    zeros = [n.input[2] for n in large]
    assert len(set(zeros)) == len(zeros)
    assert all(not values[name].any() for name in zeros)
