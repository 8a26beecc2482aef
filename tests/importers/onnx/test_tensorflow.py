"""What TensorFlow and Keras exports hold: windows of their own, channels last, sums and extremes."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from efquantface.graph.graph import module_nodes
from efquantface.importers.onnx.importer import import_onnx
from efquantface.quantize.fake_quant import InputQuantizer
from exported import check, same_as_onnxruntime, student_of_file
from onnx_forms import array, node, save

W = {"w": array(8, 3, 3, 3) / 5, "w2": array(16, 8, 3, 3) / 8, "gw": array(16, 16) / 4}
STEM = [
    node("Conv", ["in", "w"], "c", strides=[2, 2], auto_pad="SAME_UPPER"),
    node("Relu", ["c"], "r"),
]
TAIL = [
    node("Conv", ["x", "w2"], "c2", strides=[2, 2], pads=[0, 0, 1, 1]),
    node("Relu", ["c2"], "r2"),
    node("GlobalAveragePool", ["r2"], "g"),
    node("Flatten", ["g"], "f"),
    node("MatMul", ["f", "gw"], "out"),
]
NCHW, NHWC = ("batch", 3, 32, 32), ("batch", 32, 32, 3)
HALVES = np.array([4, 4])

FORMS = {
    "blocks with channels last": [
        node("Transpose", ["r"], "t", perm=[0, 2, 3, 1]), node("Mul", ["t", "eight"], "u"),
        node("Transpose", ["u"], "ut", perm=[0, 3, 1, 2]), node("Sigmoid", ["ut"], "s"),
        node("Transpose", ["s"], "st", perm=[0, 2, 3, 1]), node("Add", ["u", "st"], "v"),
        node("ReduceMax", ["v"], "m", axes=[-1]), node("ReduceMean", ["v"], "n", axes=[1, 2]),
        node("Mul", ["v", "n"], "y1"), node("Mul", ["y1", "m"], "y"),
        node("Transpose", ["y"], "x", perm=[0, 3, 1, 2]),
    ],
    "max pool, same": [
        node("MaxPool", ["r"], "x", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    ],
    "max pool, same lower": [node("MaxPool", ["c"], "x", kernel_shape=[2, 2], auto_pad="SAME_LOWER")],
    "average pool, same": [node("AveragePool", ["c"], "x", kernel_shape=[2, 2], auto_pad="SAME_UPPER")],
    "average with padding over the edge": [
        node("AveragePool", ["c"], "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4,
             ceil_mode=1, count_include_pad=1)
    ],
    "difference": [node("Sigmoid", ["r"], "s"), node("Sub", ["r", "s"], "x")],
    "quotient": [node("Add", ["r", "one"], "s"), node("Div", ["c", "s"], "x")],
    "from a constant": [node("Sub", ["one", "r"], "x")],
    "sum of three": [node("Sigmoid", ["c"], "s"), node("Sum", ["r", "s", "c"], "x")],
    "mean of two": [node("Sigmoid", ["c"], "s"), node("Mean", ["r", "s"], "x")],
    "max with zero": [node("Max", ["c", "zero"], "x")],
    "negation": [node("Neg", ["c"], "x")],
    "largest of the map": [node("GlobalMaxPool", ["c"], "m"), node("Mul", ["r", "m"], "x")],
    "largest of the channels": [node("ReduceMax", ["c"], "m", axes=[1]), node("Mul", ["r", "m"], "x")],
    "mean of the channels": [node("ReduceMean", ["r"], "m", axes=[-3]), node("Add", ["r", "m"], "x")],
    "length of the channels": [node("ReduceL2", ["r"], "m", axes=[1]), node("Add", ["r", "m"], "x")],
    "channels last": [
        node("Transpose", ["c"], "t", perm=[0, 2, 3, 1]), node("Mul", ["t", "eight"], "u"),
        node("Relu", ["u"], "v"), node("ReduceMean", ["v"], "m", axes=[1, 2]),
        node("Add", ["v", "m"], "y"),
        node("Transpose", ["y"], "x", perm=[0, 3, 1, 2]),
    ],
    "larger half": [node("Split", ["c", "halves"], "h0"), node("Concat", ["h0", "h1"], "x", axis=1)],
}  # fmt: skip
FORMS["larger half"][0].output.append("h1")
FORMS["larger half"][0].attribute.append(node("Split", [], "o", axis=1).attribute[0])
INITS = {
    "one": np.float32([1]), "zero": np.float32(0), "eight": abs(array(8)), "halves": HALVES,
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_form(name: str, tmp_path: Path) -> None:
    used = {i for n in FORMS[name] for i in n.input}
    inits = W | {k: v for k, v in INITS.items() if k in used}
    path = save(tmp_path / "f.onnx", [*STEM, *FORMS[name], *TAIL], inits, inp=NCHW, opset=13)
    check(path, least=0.95)


def test_channels_last_from_the_input(tmp_path: Path) -> None:
    nodes = [node("Transpose", ["in"], "t", perm=[0, 3, 1, 2])]
    stem = [
        node("Conv", ["t", "w"], "c", strides=[2, 2], auto_pad="SAME_UPPER"),
        node("Relu", ["c"], "x"),
    ]
    path = save(tmp_path / "n.onnx", [*nodes, *stem, *TAIL], W, inp=NHWC)
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    wanted = ort.InferenceSession(str(path)).run(None, {"in": x.transpose(0, 2, 3, 1)})[0]
    with torch.no_grad():
        found = import_onnx(path).graph(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_zeros_around_the_pixels_are_a_code(tmp_path: Path) -> None:
    """Of mean 127.5 no pixel is zero; between two codes all of them would round at random."""
    norm = [node("Sub", ["in", "mean"], "d"), node("Div", ["d", "mean"], "x")]
    level = {"mean": np.float32(127.5)}
    conv = node("Conv", ["x", "w"], "c", strides=[2, 2], auto_pad="SAME_UPPER")
    shrunk = [node("AveragePool", ["x"], "p", kernel_shape=[2, 2]), node("Conv", ["p", "w"], "c")]
    for stem, pixels in (([conv], True), (shrunk, False)):
        nodes = [*norm, *stem, node("Relu", ["c"], "r"), *FORMS["negation"], *TAIL]
        path = save(tmp_path / "z.onnx", nodes, W | level, inp=NCHW)
        _, student, parity = student_of_file(path)
        quantizer = next(m for _, m in module_nodes(student.graph))
        assert isinstance(quantizer, InputQuantizer)
        assert quantizer.pixels == pixels
        assert parity.problems == []


PADS = ([0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0])


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("pads", PADS, ids=str)
def test_windows(op: str, pads: list[int], tmp_path: Path) -> None:
    """Every window over maps of odd and even sizes."""
    for size, kernel, stride, ceil, include in product((8, 9), (2, 3), (1, 2), (0, 1), (0, 1)):
        if op == "MaxPool" and include:
            continue
        attrs = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": pads}
        attrs |= {"ceil_mode": ceil} | ({"count_include_pad": include} if op != "MaxPool" else {})
        nodes = [node(op, ["in"], "p", **attrs), node("Flatten", ["p"], "out")]
        same_as_onnxruntime(
            save(tmp_path / "w.onnx", nodes, {}, opset=19, inp=("n", 3, size, size))
        )
