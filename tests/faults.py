"""Faults that are planted into exported files: each a small function on the file in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from efquantface.contract import METADATA_KEY

Fault = Callable[["File"], None]


class File:
    """An ONNX file in memory; layers go by the names of their nodes."""

    def __init__(self, model: ModelProto) -> None:
        self.model, self.graph = ModelProto(), None
        self.model.CopyFrom(model)
        self.graph = self.model.graph

    def node(self, name: str) -> NodeProto:
        """The node of a name."""
        return next(n for n in self.graph.node if n.name == name)

    def maker(self, tensor: str) -> NodeProto:
        """The node that makes a tensor."""
        return next(n for n in self.graph.node if tensor in n.output)

    def readers(self, tensor: str) -> list[NodeProto]:
        """The nodes that read a tensor."""
        return [n for n in self.graph.node if tensor in n.input]

    def value(self, name: str) -> np.ndarray:
        """An initializer's value, writable."""
        found = next(i for i in self.graph.initializer if i.name == name)
        return numpy_helper.to_array(found).copy()

    def add(self, name: str, value: Any) -> str:
        """A new initializer."""
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def change(self, name: str, change: Callable[[np.ndarray], Any]) -> None:
        """Replace an initializer by what ``change`` makes of it; its type stays."""
        old = self.value(name)
        new = np.asarray(change(old)).astype(old.dtype)
        stored = next(i for i in self.graph.initializer if i.name == name)
        stored.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(new).reshape(new.shape), name))

    def operand(self, layer: str, index: int) -> NodeProto:
        """What dequantizes a layer's input (0), weight (1) or bias (2)."""
        return self.maker(self.node(layer).input[index])

    def weight(self, layer: str, change: Callable[[np.ndarray], Any]) -> None:
        """Change a layer's weight codes."""
        self.change(self.operand(layer, 1).input[0], change)

    def weight_scale(self, layer: str, change: Callable[[np.ndarray], Any]) -> None:
        """Change a layer's weight scales."""
        self.change(self.operand(layer, 1).input[1], change)

    def bias(self, layer: str, change: Callable[[np.ndarray], Any]) -> None:
        """Change a layer's bias codes."""
        self.change(self.operand(layer, 2).input[0], change)

    def own(self, node: NodeProto, index: int, change: Callable[[np.ndarray], Any]) -> None:
        """Give a node an input of its own, changed; other readers keep theirs."""
        old = self.value(node.input[index])
        name = f"own{len(self.graph.initializer)}"
        node.input[index] = self.add(name, np.asarray(change(old)).astype(old.dtype))

    def behind_output(self, op: str, *inputs: str, **attrs: Any) -> NodeProto:
        """Put an operator behind the embedding, under whose name its output goes."""
        name = self.graph.output[0].name
        last = self.maker(name)
        last.output[list(last.output).index(name)] = "raw"
        node = helper.make_node(op, ["raw", *inputs], [name], **attrs)
        self.graph.node.append(node)
        return node

    def metadata(self, key: str, value: str | None) -> None:
        """Set an entry of the metadata, or take it out."""
        kept = {p.key: p.value for p in self.model.metadata_props if p.key != key}
        del self.model.metadata_props[:]
        helper.set_model_props(self.model, kept if value is None else {**kept, key: value})

    def contract(self, **changes: Any) -> None:
        """Change fields of the stored contract."""
        stored = {p.key: p.value for p in self.model.metadata_props}[METADATA_KEY]
        self.metadata(METADATA_KEY, json.dumps({**json.loads(stored), **changes}))

    def bytes(self) -> bytes:
        """The file."""
        return self.model.SerializeToString()


def put(index: Any, change: Callable[[Any], Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Change one place of an array."""

    def changed(values: np.ndarray) -> np.ndarray:
        values[index] = change(values[index])
        return values

    return changed


def less(value: Any) -> Any:
    """One code less in size, so that every code stays in range."""
    return value - 1 if value > 0 else value + 1


def largest(values: np.ndarray) -> np.ndarray:
    """The largest value with its sign flipped."""
    flat = values.reshape(-1)
    flat[np.argmax(np.abs(flat.astype(int)))] *= -1
    return values


def swapped(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    """The first two slices along an axis change places."""

    def change(values: np.ndarray) -> np.ndarray:
        order = [1, 0, *range(2, values.shape[axis])]
        return values.take(order, axis)

    return change


def first_rows_only(file: File) -> None:
    """Only the first 64 crops of a batch get an embedding."""
    bounds = [file.add(f"s{i}", np.array([i], np.int64)) for i in (0, 64)]
    file.behind_output("Slice", *bounds, bounds[0])


def rows_repeated(file: File) -> None:
    """All crops of a batch get the first one's share of a hundredth."""
    first, part = file.add("zero", np.array([0], np.int64)), file.add("part", np.float32(0.01))
    sum_ = file.behind_output("Add", "share")
    last = len(file.graph.node) - 1
    made = [
        helper.make_node("Gather", ["raw", first], ["first"], axis=0),
        helper.make_node("Mul", ["first", part], ["share"]),
    ]
    for index, node in enumerate(made):
        file.graph.node.insert(last + index, node)
    assert sum_.op_type == "Add"


def late_rows_zeroed(file: File) -> None:
    """Crops beyond the 64th get zeros."""
    keep = np.zeros((1024, 1), np.float32)
    keep[:64] = 1
    names = [file.add("keep", keep), file.add("z0", np.array([0], np.int64))]
    file.behind_output("Mul", "kept")
    last = len(file.graph.node) - 1
    made = [
        helper.make_node("Shape", ["raw"], ["size"], start=0, end=1),
        helper.make_node("Slice", [names[0], names[1], "size", names[1]], ["kept"]),
    ]
    for index, node in enumerate(made):
        file.graph.node.insert(last + index, node)


def through_float16(file: File) -> None:
    """The embedding passes float16."""
    file.behind_output("Cast", to=TensorProto.FLOAT)
    last = len(file.graph.node) - 1
    file.graph.node[last].input[0] = "half"
    file.graph.node.insert(
        last, helper.make_node("Cast", ["raw"], ["half"], to=TensorProto.FLOAT16)
    )


def channels_reversed(file: File) -> None:
    """The file reads BGR."""
    order = file.add("order", np.array([2, 1, 0], np.int64))
    name = file.graph.input[0].name
    for node in file.readers(name):
        node.input[list(node.input).index(name)] = "reversed"
    file.graph.node.insert(0, helper.make_node("Gather", [name, order], ["reversed"], axis=1))


def renamed_input(file: File) -> None:
    """The input has another name."""
    name = file.graph.input[0].name
    for node in file.readers(name):
        node.input[list(node.input).index(name)] = "data"
    file.graph.input[0].name = "data"


def renamed_output(file: File) -> None:
    """The output has another name."""
    name = file.graph.output[0].name
    file.maker(name).output[0] = "fc1"
    file.graph.output[0].name = "fc1"


def second_output(file: File) -> None:
    """A tensor more comes out."""
    value = onnx.ValueInfoProto()
    value.CopyFrom(file.graph.output[0])
    value.name = "again"
    file.graph.output.append(value)
    file.graph.node.append(helper.make_node("Identity", [file.graph.output[0].name], ["again"]))
