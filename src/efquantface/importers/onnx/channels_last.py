"""From TensorFlow's order of axes at a file's input, (N,H,W,C), to (N,C,H,W).

Nodes that work on the crops themselves (normalization, another order of channels, padding) get new axes
and constants, up to the transposition that follows them. Other nodes that read crops get a transposition
back to the file's order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from efquantface.importers.onnx.proto import Array

_AXIS = (0, 2, 3, 1)  # the number in (N,C,H,W) of each axis of (N,H,W,C)
_TO_FIRST, _TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
_SAME = ("Identity", "Cast", "Dropout", "Neg", "Relu", "Clip")
_WITH_CONSTANTS = ("Add", "Sub", "Mul", "Div")


class _Cannot(Exception):
    """A node that cannot be rewritten."""


def channels_first(model: onnx.ModelProto, source: str) -> tuple[onnx.ModelProto, set[str]]:
    """The same network over crops (N,C,H,W).

    Args:
        model: reads crops (N,H,W,C); not changed.
        source: name of its input.

    Returns:
        The network, and the names of values with the new order of axes.
    """
    turned = {source}
    made = onnx.ModelProto()
    made.CopyFrom(model)
    constants = _constants(made)
    nodes: list[NodeProto] = []
    for node in made.graph.node:
        if not turned.intersection(node.input):
            nodes.append(node)
            continue
        try:
            new = _turn(node, turned, constants)
        except _Cannot:
            new = node
            nodes += _back(new, turned)
        else:
            ends = node.op_type == "Transpose"
            turned.update([] if ends else node.output)
        nodes.append(new)
    known = {i.name for i in made.graph.initializer}
    made.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(v), name)
        for name, v in constants.items()
        if name not in known and name.startswith("efq_")
    )
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made, turned - {source}


def _constants(model: onnx.ModelProto) -> dict[str, Array]:
    found = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found


def _back(node: NodeProto, turned: set[str]) -> list[NodeProto]:
    """Transpositions to the file's order in front of a node that needs it."""
    made = []
    for index, name in enumerate(node.input):
        if name in turned:
            node.input[index] = f"{name}_last_{node.output[0]}"
            made.append(helper.make_node("Transpose", [name], [node.input[index]], perm=_TO_LAST))
    return made


def _turn(node: NodeProto, turned: set[str], constants: dict[str, Array]) -> NodeProto:
    """The node for crops (N,C,H,W).

    Raises:
        _Cannot: the node cannot be rewritten.
    """
    kind, attrs = node.op_type, {a.name: helper.get_attribute_value(a) for a in node.attribute}
    new = NodeProto()
    new.CopyFrom(node)

    def replaced(index: int, change: Callable[[Array], Any]) -> None:
        name = node.input[index]
        if name not in constants:
            raise _Cannot
        new.input[index] = f"efq_{name}_{node.output[0]}"
        constants[new.input[index]] = np.asarray(change(constants[name]))

    if kind in _SAME:
        return new
    if kind == "Transpose" and attrs.get("perm") == _TO_FIRST:
        return helper.make_node("Identity", node.input, node.output, name=node.name)
    if kind in _WITH_CONSTANTS:
        for index, name in enumerate(node.input):
            if name not in turned:
                replaced(index, _spread)
        return new
    if kind in ("Gather", "Split", "Concat") and "axis" in attrs:
        if kind == "Concat" and not turned.issuperset(node.input):
            raise _Cannot
        if kind == "Gather" and constants.get(node.input[1], np.zeros(())).ndim != 1:
            raise _Cannot
        _set_axis(new, _AXIS[int(attrs["axis"]) % 4])
        return new
    if kind == "Slice" and len(node.input) > 3 and node.input[3]:
        replaced(3, lambda axes: np.array([_AXIS[int(a) % 4] for a in axes.reshape(-1)]))
        return new
    if kind == "Pad" and len(node.input) > 1 and len(node.input) < 4:
        replaced(1, lambda pads: pads.reshape(2, 4)[:, _TO_FIRST].reshape(-1))
        return new
    raise _Cannot


def _spread(value: Array) -> Array:
    """From a constant that is broadcast over (N,H,W,C) to one for (N,C,H,W)."""
    if value.ndim > 4:
        raise _Cannot
    return value.reshape((1,) * (4 - value.ndim) + value.shape).transpose(_TO_FIRST)


def _set_axis(node: NodeProto, axis: int) -> None:
    for attribute in node.attribute:
        if attribute.name == "axis":
            attribute.i = axis
