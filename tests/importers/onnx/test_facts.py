"""The normalization that a file starts with, against ONNX Runtime on black and white crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from efquantface.importers.onnx.facts import read_facts
from onnx_forms import node, save

CHANNELS = np.array([1.0, 2.0, 4.0], np.float32)
TAIL = [node("GlobalAveragePool", ["x"], "g"), node("Flatten", ["g"], "out")]
STATISTICS = {
    "s": CHANNELS,
    "b": CHANNELS * 10,
    "m": CHANNELS * 30,
    "v": CHANNELS * 900,
}

FRONTS = {
    "sub, mul": (
        [node("Sub", ["in", "m"], "y"), node("Mul", ["y", "f"], "x")],
        {"m": np.float32(127.5), "f": np.float32(1 / 128)},
    ),
    "sub, div a channel": (
        [node("Sub", ["in", "m"], "y"), node("Div", ["y", "d"], "x")],
        {"m": (120 + CHANNELS).reshape(1, 3, 1, 1), "d": (50 + CHANNELS).reshape(3, 1, 1)},
    ),
    "a whole mean image": (
        [node("Sub", ["in", "m"], "y"), node("Div", ["y", "d"], "x")],
        {"m": np.full((3, 8, 8), 100, np.float32), "d": np.full((1,), 64, np.float32)},
    ),
    "constant folded on the way": (
        [
            node("Mul", ["p", "q"], "m"),
            node("Identity", ["in"], "same"),
            node("Sub", ["same", "m"], "y"),
            node("Add", ["y", "y"], "x"),
        ],
        {"p": np.float32(2), "q": np.float32(60)},
    ),
    "half precision": ([node("Add", ["m", "in"], "x")], {"m": np.float16(-64)}),
    "batch norm": (
        [node("BatchNormalization", ["in", *STATISTICS], "x", epsilon=1e-3)],
        STATISTICS,
    ),
    "to the unit interval": ([node("Div", ["in", "d"], "x")], {"d": np.float32(255)}),
}


def reference(path: Path) -> tuple[float, float]:
    """Mean and deviation that map black to 0 the way the file does, by running its front."""
    model = onnx.load(str(path))
    for initializer in model.graph.initializer:  # ONNX Runtime wants one type
        values = numpy_helper.to_array(initializer).astype(np.float32)
        initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    black, white = (
        float(session.run(None, {"in": np.full((1, 3, 8, 8), v, np.float32)})[0].mean())
        for v in (0, 255)
    )
    slope = (white - black) / 255
    return -black / slope, 1 / slope


@pytest.mark.parametrize("name", FRONTS)
def test_normalization_is_what_the_runtime_computes(tmp_path: Path, name: str) -> None:
    nodes, constants = FRONTS[name]
    path = save(tmp_path / "m.onnx", [*nodes, *TAIL], constants)
    np.testing.assert_allclose(read_facts(path).front, reference(path), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("Div", ["d", "in"], "x")], {"d": np.float32(255)}),  # one over the pixels
        ([node("Sub", ["d", "in"], "x")], {"d": np.float32(255)}),  # a negative
        ([node("Mul", ["in", "d"], "x")], {"d": np.float32(0)}),
        ([node("Sub", ["in", "d"], "x")], {"d": np.full((5,), 9, np.float32)}),  # of another shape
        ([node("Sub", ["in", "in"], "x")], {}),
        ([node("Relu", ["in"], "x")], {}),
    ],
)
def test_what_is_no_normalization(tmp_path: Path, nodes: list, constants: dict) -> None:
    path = save(tmp_path / "m.onnx", [*nodes, *TAIL], constants)
    assert read_facts(path).front == (0.0, 1.0)


def test_facts_of_a_file_with_operators_of_its_own(tmp_path: Path) -> None:
    mine = node("Mystery", ["in"], "x")
    mine.domain = "mine"
    path = save(tmp_path / "m.onnx", [mine, *TAIL], {}, inp=("batch", 3, "h", "w"))
    facts = read_facts(path)
    assert (facts.input_name, facts.output_name) == ("in", "out")
    assert (facts.height, facts.width) == (112, 112)
    assert facts.node_names == ("the_x", "the_g", "the_out")
