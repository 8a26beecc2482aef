"""Files that stack crops along the batch, such as a crop and its mirror image, and join them at the end.

A graph has one row per crop. A value that stacks several crops is imported several times, once for each,
and split where the file splits it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx

from efquantface.importers.onnx.context import Context
from efquantface.importers.onnx.pixels import Pixels


class Batches:
    """Repeats a file's nodes for each of the crops that its values stack.

    Attributes:
        counts: how many crops a value of the file stacks, by the value's name; only stacked values.
    """

    def __init__(self, context: Context, pixels: Pixels) -> None:
        self.context, self.pixels = context, pixels
        self.counts: dict[str, int] = {}

    def spread(self, nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
        """The nodes to import, in order, without those that only stack or split crops."""
        for node in nodes:
            if self._stacks(node):
                for index, name in enumerate(node.input):
                    self._alias(name, _part(node.output[0], index))
                self.counts[node.output[0]] = len(node.input)
                continue
            count = max((self.counts.get(name, 0) for name in node.input), default=0)
            if not count:
                yield node
            elif not self._taken_apart(node, count):
                yield from (self._copy(node, index) for index in range(count))
                self.counts.update(dict.fromkeys(node.output, count))

    def _stacks(self, node: onnx.NodeProto) -> bool:
        if node.op_type != "Concat" or any(name in self.counts for name in node.input):
            return False
        if any(name in self.context.moved or not self._known(name) for name in node.input):
            return False
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        return axis in (0, -len(self._shape(node.input[0])))

    def _taken_apart(self, node: onnx.NodeProto, count: int) -> bool:
        """Whether a node splits stacked crops or gives their shape; its results are recorded."""
        name = node.input[0]
        if node.op_type == "Shape" and self.counts.get(name) == count:
            shape = (count, *self._shape(_part(name, 0))[1:])
            self.context.constants[node.output[0]] = np.asarray(shape, np.int64)
            return True
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        rest = [self.context.constants.get(n) for n in node.input[1:]]
        if node.op_type == "Split" and attrs.get("axis", 0) == 0 and len(node.output) == count:
            for index, output in enumerate(node.output):
                self._alias(_part(name, index), output)
            return True
        if node.op_type == "Slice" and len(rest) >= 2 and all(v is not None for v in rest):
            starts, stops, *more = [np.asarray(v).reshape(-1).tolist() for v in rest]
            axes, steps = more[0] if more else [0], more[1] if len(more) > 1 else [1]
            if axes == [0] and steps == [1]:
                chosen = range(count)[slice(starts[0], stops[0])]
                if len(chosen) == 1:
                    self._alias(_part(name, chosen[0]), node.output[0])
                    return True
        return False

    def _copy(self, node: onnx.NodeProto, index: int) -> onnx.NodeProto:
        """The node for one of the stacked crops."""
        made = onnx.NodeProto()
        made.CopyFrom(node)
        for at, name in enumerate(node.input):
            if name in self.counts:
                made.input[at] = _part(name, index)
        for at, name in enumerate(node.output):
            made.output[at] = _part(name, index)
        return made

    def _known(self, name: str) -> bool:
        return name in self.context.names or name in self.pixels.views

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = self.pixels.shape(name)
        if shape is not None:
            return shape
        return tuple(self.context.examples[self.context.names[name]].shape)

    def _alias(self, name: str, other: str) -> None:
        """Give a value a second name."""
        if name in self.pixels.views:
            self.pixels.views[other] = self.pixels.views[name]
        if name in self.context.names:
            self.context.names[other] = self.context.names[name]
        if name in self.pixels.images:
            self.pixels.images.add(other)
        if name in self.context.moved:
            self.context.moved[other] = self.context.moved[name]


def _part(name: str, index: int) -> str:
    """The name of one stacked crop's value."""
    return f"{name}#{index}"
