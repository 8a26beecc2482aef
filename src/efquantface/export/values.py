"""The ONNX graph under construction: nodes, initializers, and what each of our values is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class Value:
    """A tensor of the file: float, or uint8 codes with their step and zero point.

    Attributes:
        name: tensor name in the file.
        step, zero_point: None for a float tensor.
        levels: largest code.
    """

    name: str
    step: float | None = None
    zero_point: int = 0
    levels: int = 255

    @property
    def is_codes(self) -> bool:
        return self.step is not None

    def renamed(self, name: str) -> Value:
        """The same codes under another name."""
        return Value(name, self.step, self.zero_point, self.levels)


@dataclass
class OnnxBuilder:
    """Collects nodes and initializers with unique names."""

    nodes: list[NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def unique(self, name: str) -> str:
        """``name``, with a counter where it is taken already."""
        candidate, count = name, 1
        while candidate in self.taken:
            count += 1
            candidate = f"{name}.{count}"
        self.taken.add(candidate)
        return candidate

    def constant(self, name: str, value: npt.ArrayLike, dtype: Any) -> str:
        """Add an initializer and return its name."""
        unique = self.unique(name)
        array = np.ascontiguousarray(np.asarray(value, dtype=dtype))
        array = array.reshape(np.shape(value))
        self.initializers.append(numpy_helper.from_array(array, unique))
        return unique

    def node(self, op: str, inputs: Sequence[str], name: str, **attrs: Any) -> str:
        """Add a node and return its output; the node is named ``op/name`` in lower case."""
        output = self.unique(f"{name}.{op.lower()}")
        label = f"{op.lower()}/{name}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=label, **attrs))
        return output

    def quantize(self, source: str, name: str, step: float, zero_point: int, levels: int) -> Value:
        """Float tensor to codes; below 8 bits the codes are limited by an integer Clip."""
        scale = self.constant(f"{name}.scale", step, np.float32)
        zero = self.constant(f"{name}.zero_point", zero_point, np.uint8)
        codes = self.node("QuantizeLinear", (source, scale, zero), name)
        value = Value(codes, step, zero_point, levels)
        return value if levels == 255 else self.clip(value, 0, levels, name)

    def clip(self, value: Value, low: int, high: int, name: str) -> Value:
        """Limit codes to [low, high] in integers (both bounds given, as the runtimes want)."""
        bounds = (
            self.constant(f"{name}.low", low, np.uint8),
            self.constant(f"{name}.high", high, np.uint8),
        )
        return value.renamed(self.node("Clip", (value.name, *bounds), name))

    def dequantize(self, value: Value, name: str) -> str:
        """Codes to float: the form that runtimes fuse into the integer kernel that follows."""
        if not value.is_codes:
            return value.name
        scale = self.constant(f"{name}.in_scale", value.step or 0.0, np.float32)
        zero = self.constant(f"{name}.in_zero_point", value.zero_point, np.uint8)
        return self.node("DequantizeLinear", (value.name, scale, zero), name)

    def weight(
        self, codes: npt.NDArray[np.int8], steps: npt.NDArray[np.float32], name: str
    ) -> str:
        """int8 weight codes with one step an output channel (axis 0), dequantized."""
        stored = self.constant(f"{name}.weight", codes, np.int8)
        scale = self.constant(f"{name}.weight_scale", steps, np.float32)
        zero = self.constant(f"{name}.weight_zero_point", np.zeros(len(steps)), np.int8)
        return self.node("DequantizeLinear", (stored, scale, zero), f"{name}.weight", axis=0)

    def bias(
        self, bias: npt.NDArray[np.float32], steps: npt.NDArray[np.float32], name: str
    ) -> str:
        """int32 bias in units of input step times weight step, dequantized.

        The caller keeps it in range (see ``guard_biases``); an overflow here is a defect.
        """
        codes = np.rint(bias.astype(np.float64) / steps.astype(np.float64))
        assert np.abs(codes).max(initial=0) < 2**31, f"bias of {name} overflows int32"
        stored = self.constant(f"{name}.bias", codes, np.int32)
        scale = self.constant(f"{name}.bias_scale", steps, np.float32)
        zero = self.constant(f"{name}.bias_zero_point", np.zeros(len(steps)), np.int32)
        return self.node("DequantizeLinear", (stored, scale, zero), f"{name}.bias", axis=0)
