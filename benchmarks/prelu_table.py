"""A PReLU of one slope as ONNX Runtime's table (QLinearLeakyRelu) beside the two operators of a PReLU.

    python benchmarks/prelu_table.py --teacher y1.onnx

First the slopes of the teacher's layers; then the median of ratios in turns, one map of 128x56x56 codes.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from efquantface.graph import ops
from efquantface.importers.load import load_model

SHAPE = (1, 128, 56, 56)
MS = "com.microsoft"


def session(table: bool) -> ort.InferenceSession:
    """Codes to codes: one table, or a product per channel and a sum."""
    rng, channels = np.random.default_rng(0), SHAPE[1]
    constants = {
        "s": np.float32(0.02), "z": np.uint8(120), "t": np.float32(0.01), "o": np.uint8(100),
        "w": rng.integers(-127, 127, (channels, 1, 1, 1)).astype(np.int8),
        "ws": np.full(channels, 0.002, np.float32), "wz": np.zeros(channels, np.int8),
    }  # fmt: skip
    if table:
        nodes = [
            helper.make_node(
                "QLinearLeakyRelu", ["x", "s", "z", "t", "o"], ["y"], domain=MS, alpha=0.25
            )
        ]
    else:
        nodes = [
            helper.make_node(
                "QLinearConv", ["x", "s", "z", "w", "ws", "wz", "t", "o"], ["p"],
                group=channels, kernel_shape=[1, 1],
            ),
            helper.make_node("QLinearAdd", ["x", "s", "z", "p", "t", "o", "s", "z"], ["y"], domain=MS),
        ]  # fmt: skip
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "prelu",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, SHAPE)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--rounds", type=int, default=100)
    given = parser.parse_args()
    graph = load_model(given.teacher).graph
    spread = [float(m.slope.detach().std()) for m in graph.modules() if isinstance(m, ops.PReLU)]
    print(f"standard deviation of slopes within a layer: {min(spread):.2f} to {max(spread):.2f}")
    codes = np.random.default_rng(1).integers(0, 255, SHAPE).astype(np.uint8)
    sessions = [session(True), session(False)]
    times = np.empty((given.rounds, 2))
    for turn in range(given.rounds):
        for column, one in enumerate(sessions):
            began = time.perf_counter()
            for _ in range(5):
                one.run(None, {"x": codes})
            times[turn, column] = (time.perf_counter() - began) / 5 * 1e3
    low, middle, high = np.quantile(times[:, 1] / times[:, 0], (0.25, 0.5, 0.75))
    table, parts = np.median(times, axis=0)
    print(
        f"table {table:.3f} ms, product and sum {parts:.3f} ms: {middle:.2f}x ({low:.2f} to {high:.2f})"
    )


if __name__ == "__main__":
    main()
