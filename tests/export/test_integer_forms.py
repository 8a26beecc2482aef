"""Integer layers in plain NumPy, from the file's own initializers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.export.onnx_writer import write_onnx
from efquantface.runtime.sessions import onnxruntime_session
from students import Pattern, student_of


def test_numpy_integer_reference(tmp_path: Path, contract: FaceContract) -> None:
    """The first convolution in plain NumPy int32, from the file's own initializers."""
    torch.manual_seed(3)
    _, student = student_of(Pattern(nn.MaxPool2d(2)), contract)
    path = tmp_path / "student.onnx"
    write_onnx(student, path)
    model = onnx.load(str(path))
    values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    by_output = {n.output[0]: n for n in model.graph.node}
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    source, weight, bias = (by_output[name] for name in conv.input)
    in_scale, in_zero = values[source.input[1]], values[source.input[2]]
    codes, steps = values[weight.input[0]].astype(np.int32), values[weight.input[1]]
    bias_codes = values[bias.input[0]]
    assert bias_codes.dtype == np.int32
    out = next(
        n
        for n in model.graph.node
        if n.op_type == "QuantizeLinear" and n.input[0] == conv.output[0]
    )
    out_scale, out_zero = values[out.input[1]], values[out.input[2]]

    faces = make_faces().images[:2]
    pixels = contract.pixels(faces).astype(np.int32) - int(in_zero)
    padded = np.pad(pixels, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    accumulated = np.einsum("nchwij,ocij->nohw", windows, codes) + bias_codes[None, :, None, None]
    factor = (in_scale * steps / out_scale).astype(np.float32)[None, :, None, None]
    expected = np.rint(accumulated.astype(np.float32) * factor) + int(out_zero)
    expected = np.clip(expected, 0, 255).astype(np.uint8)

    model.graph.output.append(
        onnx.helper.make_tensor_value_info(out.output[0], onnx.TensorProto.UINT8, None)
    )
    session = onnxruntime_session(model.SerializeToString())
    found = session.run([out.output[0]], {"input": contract.normalize(faces)})[0]
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
