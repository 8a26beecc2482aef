"""What handlers of ONNX operators work with: the graph under construction and one node's operands.

A handler reads a node's operands: constants as NumPy arrays, activations as names in the graph under
construction. It adds modules and returns the name of its result, or the names of several. It raises
:class:`NotCanonical` with a reason where a node has no canonical form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from efquantface.graph.footprint import check_result
from efquantface.graph.graph import GraphBuilder
from efquantface.graph.limits import TooLarge
from efquantface.importers.onnx.places import FRONT, Place
from efquantface.quantize.codes import gives_codes

Array = npt.NDArray[Any]


class NotCanonical(Exception):
    """A node has no canonical form; the text says why."""


@dataclass
class Context:
    """What is known while a graph is imported.

    Attributes:
        examples: an example tensor for each name in the graph under construction.
        constants: ONNX values that are constant, by their name.
        names: the graph's name of each other ONNX value.
        moved: places of the batch (:class:`Place`) in ONNX values where it is not the whole first axis.
        floats: names in the graph whose values stay in float in every student.
        single: the file takes one crop at a time, so that operators may work on all axes.
    """

    builder: GraphBuilder
    examples: dict[str, Tensor]
    constants: dict[str, Array] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    moved: dict[str, Place] = field(default_factory=dict)
    floats: set[str] = field(default_factory=set)
    single: bool = False

    def place(self, name: str) -> Place:
        """The place of the batch in an ONNX value."""
        return self.moved.get(name, FRONT)

    def put(self, name: str, place: Place) -> None:
        """Remember the place of the batch in an ONNX value."""
        if place != FRONT:
            self.moved[name] = place

    def file_shape(self, name: str) -> tuple[int, ...]:
        """The shape of an ONNX value for one crop."""
        return self.place(name).shape(tuple(self.examples[self.names[name]].shape))

    def add(self, name: str, module: nn.Module, *inputs: str) -> str:
        """Append a module, and run it on the examples so that its shape is known."""
        with torch.no_grad():
            try:
                check_result(module, *(self.examples[i] for i in inputs))
                example = module.eval()(*(self.examples[i] for i in inputs))
            except (RuntimeError, TooLarge) as error:
                raise NotCanonical(str(error).splitlines()[0]) from None
        result = self.builder.add(name, module, *inputs)
        self.examples[result] = example
        if not gives_codes(module, example.dim(), not self.floats.intersection(inputs)):
            self.floats.add(result)
        return result


@dataclass
class Operands:
    """One ONNX node: its attributes, and its inputs as constants or graph names."""

    node: onnx.NodeProto
    context: Context
    attrs: dict[str, Any]
    opset: int

    @property
    def label(self) -> str:
        return self.node.name or self.node.output[0]

    def constant(self, index: int, default: Array | None = None) -> Array:
        """Input ``index`` as a constant, or ``default`` where it is absent."""
        if index >= len(self.node.input) or not self.node.input[index]:
            if default is None:
                raise NotCanonical(f"input {index} is missing")
            return default
        name = self.node.input[index]
        if name not in self.context.constants:
            raise NotCanonical(f"input {index} ({name}) is not a constant")
        return self.context.constants[name]

    def has(self, index: int) -> bool:
        return index < len(self.node.input) and bool(self.node.input[index])

    def is_constant(self, index: int) -> bool:
        return self.node.input[index] in self.context.constants

    def activation(self, index: int = 0) -> str:
        name = self.node.input[index]
        if name not in self.context.names:
            raise NotCanonical(f"input {index} ({name}) is not an activation")
        if name in self.context.moved:
            raise NotCanonical(f"the batch of input {index} ({name}) is not in front")
        return self.context.names[name]

    def any_activation(self) -> str:
        """The graph's name of the first input, wherever its batch is."""
        name = self.node.input[0]
        if name not in self.context.names:
            raise NotCanonical(f"{name} is not an activation")
        return self.context.names[name]

    def shape(self, index: int = 0) -> tuple[int, ...]:
        return tuple(self.context.examples[self.activation(index)].shape)

    def size(self, name: str) -> tuple[int, ...]:
        """The shape of a value of the graph under construction."""
        return tuple(self.context.examples[name].shape)

    def axes(self, index: int = 1) -> list[int] | None:
        """Axes from the attribute ``axes`` or from input ``index``; None where neither is there."""
        axes = self.attrs.get("axes")
        if axes is None and self.has(index):
            axes = self.constant(index).reshape(-1).tolist()
        return None if axes is None else [int(a) for a in axes]

    def add(self, module: nn.Module, *inputs: str, suffix: str = "") -> str:
        return self.context.add(self.label + suffix, module, *inputs)

    def tensor(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self.constant(index), dtype=np.float32))


Handler = Callable[[Operands], str | list[str]]
