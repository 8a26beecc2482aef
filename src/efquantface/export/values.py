"""The ONNX graph under construction: nodes, initializers, and what each of our values is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from efquantface.errors import ExportError


@dataclass(frozen=True)
class Value:
    """A tensor of the file: float, or codes (uint8, int8 if signed) with step and zero point.

    Attributes:
        name: tensor name in the file.
        step, zero_point: None for a float tensor.
        lowest, highest: the codes used.
        signed: int8 codes.
        constants: the initializers of step and zero point, shared by all readers.
    """

    name: str
    step: float | None = None
    zero_point: int = 0
    lowest: int = 0
    highest: int = 255
    signed: bool = False
    constants: tuple[str, str] | None = None  # names of step and zero point in the file

    @property
    def is_codes(self) -> bool:
        return self.step is not None

    @property
    def dtype(self) -> Any:
        """The codes' type."""
        return np.int8 if self.signed else np.uint8

    def renamed(self, name: str) -> Value:
        """The same codes under another name."""
        return replace(self, name=name)


@dataclass
class OnnxBuilder:
    """Collects nodes and initializers.

    Tensors get short numbered names, since a small network's names would be a tenth of its file;
    nodes keep the layer's name where it tells something.
    """

    nodes: list[NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    count: int = 0

    def unique(self, prefix: str) -> str:
        """A short name that is not taken yet."""
        while True:
            self.count += 1
            candidate = f"{prefix}{self.count}"
            if candidate not in self.taken:
                return candidate

    def constant(self, value: npt.ArrayLike, dtype: Any) -> str:
        """Add an initializer and return its name."""
        unique = self.unique("c")
        array = np.ascontiguousarray(np.asarray(value, dtype=dtype))
        array = array.reshape(np.shape(value))
        self.initializers.append(numpy_helper.from_array(array, unique))
        return unique

    def node(self, op: str, inputs: Sequence[str], name: str, **attrs: Any) -> str:
        """Add a node and return its output; the node is named ``op/name`` in lower case."""
        output = self.unique("t")
        label = f"{op.lower()}/{name}" if name else ""
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=label, **attrs))
        return output

    def quantize(
        self, source: str, name: str, step: float, zero_point: int, codes: tuple[int, int, bool]
    ) -> Value:
        """Float tensor to codes (lowest, highest, signed).

        Where not all codes of the type are used, they are limited by an integer Clip.
        """
        lowest, highest, signed = codes
        value = Value("", step, zero_point, lowest, highest, signed)
        constants = self.parameters(value)
        quantized = self.node("QuantizeLinear", (source, *constants), name)
        value = replace(value, name=quantized, constants=constants)
        limits = np.iinfo(value.dtype)
        whole = (lowest, highest) == (limits.min, limits.max)
        return value if whole else self.clip(value, lowest, highest, name)

    def parameters(self, value: Value) -> tuple[str, str]:
        """Initializers of a value's step and zero point."""
        return (
            self.constant(np.float32(value.step or 0), np.float32),
            self.constant(value.zero_point, value.dtype),
        )

    def clip(self, value: Value, low: int, high: int, name: str) -> Value:
        """Limit codes to [low, high] in integers (both bounds given, as the runtimes want)."""
        bounds = (
            self.constant(low, value.dtype),
            self.constant(high, value.dtype),
        )
        return value.renamed(self.node("Clip", (value.name, *bounds), name))

    def dequantize(self, value: Value) -> str:
        """Codes to float: the form that runtimes fuse into the integer kernel that follows."""
        if not value.is_codes:
            return value.name
        constants = value.constants or self.parameters(value)
        return self.node("DequantizeLinear", (value.name, *constants), "")

    def weight(self, codes: npt.NDArray[np.int8], steps: npt.NDArray[np.float32]) -> str:
        """int8 weight codes with one step an output channel (axis 0), dequantized.

        The zero points are zeros; a convolution is fused without them, a Gemm is not.
        """
        operands = [self.constant(codes, np.int8), self.constant(steps, np.float32)]
        if codes.ndim == 2:
            operands.append(self.constant(np.zeros(len(steps)), np.int8))
        return self.node("DequantizeLinear", operands, "", axis=0)

    def bias(self, bias: npt.NDArray[np.float32], steps: npt.NDArray[np.float32], name: str) -> str:
        """int32 bias in units of input step times weight step, dequantized.

        Raises:
            ExportError: a code does not fit into int32.
        """
        codes = np.rint(bias.astype(np.float64) / steps.astype(np.float64))
        if np.abs(codes).max(initial=0) >= 2**31:
            raise ExportError(f"the bias of {name} overflows int32; refresh_biases was not called")
        stored = self.constant(codes, np.int32)
        return self.node("DequantizeLinear", (stored, self.constant(steps, np.float32)), "", axis=0)
