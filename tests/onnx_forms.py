"""Small ONNX files, put together node by node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def save(path: Path, nodes, inits, *, opset=17, inp=("batch", 3, 8, 8), outputs=("out",)) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, list(inp))],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
        [numpy_helper.from_array(v, k) for k, v in inits.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def node(op: str, inputs, output: str, **attrs):
    return helper.make_node(op, list(inputs), [output], name=f"the_{output}", **attrs)


BN = {"s": abs(array(4)), "b": array(4), "m": array(4), "v": abs(array(4))}
CONV = node("Conv", ["in", "w"], "c", pads=[1, 1, 1, 1])
W = {"w": array(4, 3, 3, 3)}
TAIL = [
    node("Flatten", ["x"], "f"),
    node("Gemm", ["f", "gw", "gb"], "out", transB=1),
]
GEMM = {"gw": array(5, 256), "gb": array(5)}
