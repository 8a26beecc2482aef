"""Integer arithmetic as the runtime's kernels round it, tried on every pair of codes."""

from __future__ import annotations

import numpy as np
import torch
from onnx import TensorProto, helper

from efquantface.backbones.edgeface import EdgeFace, EdgeFaceConfig
from efquantface.contract import FaceContract
from efquantface.export.emulate import _add, _Codes, _Sum, emulate
from efquantface.importers.load import load_model
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme
from efquantface.runtime.sessions import onnxruntime_session

CODES = np.arange(256, dtype=np.uint8)
A, B = (v.ravel() for v in np.meshgrid(CODES, CODES))


def runtime_sum(steps: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    """QLinearAdd of all pairs of codes."""
    constants = []
    for name, step, zero in zip("abc", steps, zeros, strict=True):
        constants += [
            helper.make_tensor(f"{name}_step", TensorProto.FLOAT, [], [float(step)]),
            helper.make_tensor(f"{name}_zero", TensorProto.UINT8, [], [int(zero)]),
        ]
    inputs = ["a", "a_step", "a_zero", "b", "b_step", "b_zero", "c_step", "c_zero"]
    values = [helper.make_tensor_value_info(n, TensorProto.UINT8, [len(A)]) for n in "abc"]
    graph = helper.make_graph(
        [helper.make_node("QLinearAdd", inputs, ["c"], domain="com.microsoft")],
        "sum",
        values[:2],
        values[2:],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return np.asarray(onnxruntime_session(model.SerializeToString()).run(None, {"a": A, "b": B})[0])


def test_sums_are_the_runtimes_to_the_last_code() -> None:
    """Also where a ratio of steps is a simple fraction, so that many sums lie between two codes."""
    rng = np.random.default_rng(0)
    differing = 0
    for turn in range(60):
        steps = rng.uniform(0.005, 0.1, 3).astype(np.float32)
        zeros = rng.integers(0, 256, 3)
        if turn % 2:
            steps[0] = steps[2] * np.float32(rng.integers(1, 200)) / np.float32(100)
        first, second = (
            _Codes(torch.from_numpy(codes).double(), steps[i], int(zeros[i]))
            for i, codes in enumerate((A, B))
        )
        own = _add(_Sum(first, second), steps[2], int(zeros[2])).round().clamp(0, 255)
        differing += int((own.numpy() != runtime_sum(steps, zeros)).sum())
    # kernels without fused multiply-adds round a few sums in a million to the other side
    assert differing <= 60 * len(A) * 1e-4


def test_islands_computed_in_float64_are_another_correct_answer() -> None:
    torch.manual_seed(0)
    config = EdgeFaceConfig(widths=(8, 16, 16, 24), depths=(1, 1, 1, 1), heads=2)
    contract = FaceContract(112, 112, 512)
    model = load_model(EdgeFace(config).eval(), contract=contract)
    pixels = torch.randint(0, 256, (2, 3, 112, 112))
    student = quantize(model, Scheme())
    set_ranges(student.graph, [pixels])
    narrow, wide = emulate(student, pixels), emulate(student, pixels, wide=True)
    assert wide.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(narrow, wide)
    assert cosine.min() > 0.99
    own = student.embed_pixels(pixels)
    assert torch.nn.functional.cosine_similarity(narrow, own).min() > 0.99
