"""What an ONNX file says about itself. Needs onnx and NumPy only, and any operators may be in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from efquantface.importers.onnx.proto import (
    Array,
    NotConstant,
    constants_of,
    embedding_output,
    fold,
    image_input,
    load_proto,
    width,
)

Float32 = npt.NDArray[np.float32]
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")


@dataclass(frozen=True)
class OnnxFacts:
    """What an ONNX file says about itself.

    Attributes:
        front: (mean, std) of the normalization that the graph starts with; (0, 1) where none.
        node_names: names of all nodes, in order.
    """

    height: int
    width: int
    embedding_size: int
    input_name: str
    output_name: str
    front: tuple[float, float]
    node_names: tuple[str, ...]
    metadata: dict[str, str]


def read_facts(path: Path) -> OnnxFacts:
    """What a file says about itself, also where it holds operators that cannot be imported.

    Raises:
        ModelFileError: not a network with one image input and one embedding output.
    """
    model = load_proto(path)
    source, size = image_input(model, path)
    output = embedding_output(model, path)
    declared = width(next(o for o in model.graph.output if o.name == output))
    return facts_of(model, source, output, size, declared or 1)


def facts_of(
    model: onnx.ModelProto,
    source: str,
    output: str,
    size: tuple[int, int],
    embedding_size: int,
) -> OnnxFacts:
    """The facts of a parsed file whose input, output and sizes are known."""
    return OnnxFacts(
        height=size[0],
        width=size[1],
        embedding_size=embedding_size,
        input_name=source,
        output_name=output,
        front=_front(model, source, size),
        node_names=tuple(n.name for n in model.graph.node),
        metadata={p.key: p.value for p in model.metadata_props},
    )


def _front(model: onnx.ModelProto, source: str, size: tuple[int, int]) -> tuple[float, float]:
    """(mean, std) in the input's own units that the first nodes' constants amount to.

    The nodes are computed for a black and a white pixel, until one is no normalization.
    """
    constants = constants_of(model)
    pixels = np.zeros((2, 3, 1, 1), np.float32)
    pixels[1] = 255
    values, last = {source: pixels}, pixels
    for node in model.graph.node:
        if node.op_type not in (*_ARITHMETIC, "BatchNormalization", "Identity", "Constant"):
            break
        try:
            if all(i in constants for i in node.input if i):
                constants |= fold(node, constants, model)
                continue
            with np.errstate(all="ignore"):  # what is not finite is no normalization
                last = _computed(node, values, constants, (3, *size))
        except NotConstant:
            break
        values[node.output[0]] = last
    black, white = (float(v.mean(dtype=np.float64)) for v in last)
    slope = (white - black) / 255
    return ((0.0 - black) / slope, 1 / slope) if slope > 0 else (0.0, 1.0)


def _computed(
    node: onnx.NodeProto,
    values: dict[str, Float32],
    constants: dict[str, Array],
    shape: tuple[int, int, int],
) -> Float32:
    """A node's result (2, 3, ...), in float32; ``shape`` is a crop's.

    Raises:
        NotConstant: the node is no normalization.
    """
    names = [i for i in node.input if i]
    active = [values[i] for i in names if i in values]
    if len(active) + sum(i in constants for i in names) != len(names):
        raise NotConstant("reads a value that is not known")
    if node.op_type == "Identity":
        return active[0]
    if node.op_type == "BatchNormalization":
        return _batch_norm(node, names, values, constants)
    if len(active) == 2:
        if node.op_type not in ("Add", "Mul"):
            raise NotConstant("two activations")
        return active[0] + active[1] if node.op_type == "Add" else active[0] * active[1]
    first = names[0] in constants
    x, c = active[0], _spread(constants[names[0 if first else 1]], shape)
    if node.op_type == "Add":
        return x + c
    if node.op_type == "Sub":
        return c - x if first else x - c
    if node.op_type == "Mul":
        return x * c
    if first:
        raise NotConstant("a constant divided by an activation")
    return np.asarray(x * (np.float32(1) / c), np.float32)


def _spread(constant: Array, shape: tuple[int, int, int]) -> Float32:
    """A constant as float32 that spreads over a crop of this shape."""
    value = np.asarray(constant, np.float32)
    while value.ndim > 1 and value.shape[0] == 1:  # the batch and missing axes need no entry
        value = value[0]
    try:
        fits = np.broadcast_shapes(value.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise NotConstant(f"a constant of shape {constant.shape} for crops of {shape}")
    return value


def _batch_norm(
    node: onnx.NodeProto,
    names: list[str],
    values: dict[str, Float32],
    constants: dict[str, Array],
) -> Float32:
    if names[0] not in values or len(names) != 5 or not all(i in constants for i in names[1:]):
        raise NotConstant("statistics that are no constants")
    scale, bias, mean, variance = (
        np.asarray(constants[i], np.float32).reshape(-1, 1, 1) for i in names[1:]
    )
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    factor = scale / np.sqrt(variance + np.float32(attributes.get("epsilon", 1e-5)))
    if factor.size not in (1, 3):
        raise NotConstant(f"{factor.size} channels")
    return np.asarray(values[names[0]] * factor + (bias - mean * factor), np.float32)
