"""The ONNX graph under construction: nodes, initializers, and what each of our values is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from efquantface.contract import FaceContract
from efquantface.errors import ExportError
from efquantface.export.packing import int4_initializer, six_bit_graph, stored_bits

_UNSATURATED = 7  # bits; ONNX Runtime leaves such weights signed (session.x64quantprecision)


@dataclass(frozen=True)
class Value:
    """A tensor of the file: float, or codes (uint8, int8 if signed) with scale and zero point.

    Attributes:
        name: tensor name in the file.
        scale, zero_point: None for a float tensor.
        qmin, qmax: the codes used.
        signed: int8 codes.
        constants: the initializers of scale and zero point, shared by all readers.
    """

    name: str
    scale: float | None = None
    zero_point: int = 0
    qmin: int = 0
    qmax: int = 255
    signed: bool = False
    constants: tuple[str, str] | None = None  # names of scale and zero point in the file

    @property
    def is_codes(self) -> bool:
        return self.scale is not None

    @property
    def dtype(self) -> Any:
        """The codes' type."""
        return np.int8 if self.signed else np.uint8

    @property
    def parameters(self) -> tuple[str, str]:
        """The initializers of scale and zero point."""
        assert self.constants is not None, f"{self.name} is a float tensor"
        return self.constants

    def renamed(self, name: str) -> Value:
        """The same codes under another name."""
        return replace(self, name=name)


@dataclass
class Writer:
    """Collects nodes and initializers; what the forms of operators (:mod:`emitters`) write with.

    Tensors get short numbered names, since a small network's names would be a tenth of its file;
    nodes keep the layer's name where it tells something. ``packed`` stores weights of few bits in few
    bits; ``opset`` is the file's.

    Attributes:
        contract: of the file.
        ranks: number of axes of every node's value, by name.
        quantized: the network is a student.
    """

    contract: FaceContract
    ranks: dict[str, int]
    quantized: bool
    nodes: list[NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    count: int = 0
    packed: bool = True
    opset: int = 17
    six_bit: list[tuple[str, npt.NDArray[np.int8]]] = field(default_factory=list)

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
        self, source: str, name: str, scale: float, zero_point: int, codes: tuple[int, int, bool]
    ) -> Value:
        """Float tensor to codes (qmin, qmax, signed).

        Where not all codes of the type are used, they are limited by an integer Clip.
        """
        qmin, qmax, signed = codes
        value = self.with_parameters(Value("", scale, zero_point, qmin, qmax, signed))
        quantized = self.node("QuantizeLinear", (source, *value.parameters), name)
        value = value.renamed(quantized)
        limits = np.iinfo(value.dtype)
        whole = (qmin, qmax) == (limits.min, limits.max)
        return value if whole else self.clip(value, qmin, qmax, name)

    def with_parameters(self, value: Value) -> Value:
        """A value of codes with initializers of its scale and zero point, which all readers share."""
        scale = self.constant(np.float32(value.scale or 0), np.float32)
        return replace(value, constants=(scale, self.constant(value.zero_point, value.dtype)))

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
        return self.node("DequantizeLinear", (value.name, *value.parameters), "")

    def weight(
        self, codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float32], bits: int, axis: int = 0
    ) -> tuple[str, str]:
        """int8 weight codes with one scale an output channel, which lie along ``axis``.

        Returns the names of the dequantized weight and of its scales. The zero points are zeros. A
        convolution is fused without them, a Gemm is not; and weights that ONNX Runtime makes unsigned
        where there is no VNNI need zero points of their own.
        """
        scale = self.constant(scales, np.float32)
        operands = [self._stored(codes, bits), scale]
        if codes.ndim == 2 or bits > _UNSATURATED:
            operands.append(self.constant(np.zeros(len(scales)), np.int8))
        return self.node("DequantizeLinear", operands, "", axis=axis), scale

    def _stored(self, codes: npt.NDArray[np.int8], bits: int) -> str:
        """The INT8 tensor of codes, stored in as few bits as the file's form allows."""
        size = stored_bits(bits, self.packed)
        if size == 8:
            return self.constant(codes, np.int8)
        if size == 4:
            name = self.unique("c")
            self.initializers.append(int4_initializer(codes, name))
            return self.node("Cast", (name,), "", to=TensorProto.INT8)
        name = self.unique("t")
        self.six_bit.append((name, codes))
        return name

    def unpack_first(self) -> None:
        """Put the operators that unpack 6-bit weights in front; to be called once, at the end."""
        if self.six_bit:
            nodes, initializers = six_bit_graph(self.six_bit, self.unique("w"))
            self.nodes[:0] = nodes
            self.initializers += initializers

    def bias(
        self,
        bias: npt.NDArray[np.float32],
        source: Value,
        scales: tuple[str, npt.NDArray[np.float32]],
        name: str,
    ) -> str:
        """int32 bias in units of input scale times weight scale, dequantized.

        The product of the scales is left to the runtime, which folds it at load: stored, it would be
        a third of what a layer takes beside its weights.

        Args:
            bias: real-valued (O,).
            source: the codes that the layer reads.
            scales: the weight's scales (O,), their name in the file first.
            name: the layer's, for the error.

        Raises:
            ExportError: a code does not fit into int32.
        """
        product = np.float32(source.scale or 0) * scales[1].astype(np.float32)
        codes = np.rint(bias.astype(np.float64) / product.astype(np.float64))
        if np.abs(codes).max(initial=0) >= 2**31:
            raise ExportError(f"the bias of {name} overflows int32; refresh_biases was not called")
        stored = self.constant(codes, np.int32)
        input_scale, _ = source.parameters
        scale = self.node("Mul", (input_scale, scales[0]), "")
        return self.node("DequantizeLinear", (stored, scale), "", axis=0)


def array(tensor: Tensor) -> npt.NDArray[Any]:
    """A tensor's values."""
    return np.asarray(tensor.detach().cpu().numpy())
