"""Small ONNX files that take faces, each with one thing that other files do otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper, numpy_helper

SIZE = 16
MAP = 4  # height and width behind the first convolution
WIDE = 24  # channels there, and values of the embedding

Arrays = dict[str, np.ndarray]


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights whose layers keep the size of what they read."""
    fan = int(np.prod(shape[1:])) or 1
    return (np.random.default_rng(seed).normal(size=shape) / fan**0.5).astype(np.float32)


def node(op: str, inputs: Sequence[str], outputs: str | Sequence[str], **attrs: Any) -> NodeProto:
    outputs = [outputs] if isinstance(outputs, str) else list(outputs)
    return helper.make_node(op, list(inputs), outputs, name=f"{op}_{outputs[0]}", **attrs)


def backbone(source: str = "in", channels: int = 3) -> tuple[list[NodeProto], Arrays]:
    """A convolution and its ReLU: ``map`` (N,24,4,4)."""
    nodes = [
        node("Conv", [source, "w1", "b1"], "c1", strides=[4, 4], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], "map"),
    ]
    return nodes, {"w1": drawn(WIDE, channels, 3, 3, seed=1), "b1": drawn(WIDE, seed=2)}


def dense(
    source: str = "map", result: str = "e", name: str = "g"
) -> tuple[list[NodeProto], Arrays]:
    """A linear layer over all of a map: ``result`` (N,24)."""
    nodes = [
        node("Flatten", [source], f"{name}_flat"),
        node("Gemm", [f"{name}_flat", f"{name}w", f"{name}b"], result, transB=1),
    ]
    weights = {
        f"{name}w": drawn(WIDE, WIDE * MAP * MAP, seed=3),
        f"{name}b": drawn(WIDE, seed=len(name)),
    }
    return nodes, weights


def save(
    path: Path,
    nodes: Sequence[NodeProto],
    weights: Arrays,
    *,
    shape: Sequence[int | str] = ("n", 3, SIZE, SIZE),
    element: int = TensorProto.FLOAT,
    outputs: dict[str, Sequence[int | str] | None] | None = None,
    opset: int = 17,
) -> Path:
    outputs = outputs or {"out": None}
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("in", element, list(shape))],
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def ran(path: Path, x: np.ndarray, output: str | None = None) -> np.ndarray:
    """What ONNX Runtime makes of crops, one after the other: (N,D)."""
    session = ort.InferenceSession(str(path))
    name = session.get_inputs()[0].name
    wanted = None if output is None else [output]
    return np.stack(
        [session.run(wanted, {name: x[i : i + 1]})[0].reshape(-1) for i in range(len(x))]
    )
