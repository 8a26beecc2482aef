"""The ONNX graph under construction: nodes, initializers, and the tensor of each of our values."""

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

_UNSATURATED = 7  # bits; ONNX Runtime keeps such weights signed (session.x64quantprecision)


@dataclass(frozen=True)
class Value:
    """A tensor of the file: float, or codes (uint8, or int8) with scale and zero point.

    Attributes:
        name: tensor name in the file.
        scale, zero_point: None for a float tensor.
        qmin, qmax: the smallest and the largest code.
        signed: the codes are int8.
        constants: names of the initializers of scale and zero point, shared by all readers.
    """

    name: str
    scale: float | None = None
    zero_point: int = 0
    qmin: int = 0
    qmax: int = 255
    signed: bool = False
    constants: tuple[str, str] | None = None

    @property
    def is_codes(self) -> bool:
        return self.scale is not None

    @property
    def dtype(self) -> Any:
        """The type of the codes."""
        return np.int8 if self.signed else np.uint8

    @property
    def parameters(self) -> tuple[str, str]:
        """Names of the initializers of scale and zero point."""
        assert self.constants is not None, f"{self.name} is a float tensor"
        return self.constants

    def renamed(self, name: str) -> Value:
        """The same codes under another name."""
        return replace(self, name=name)


@dataclass
class Writer:
    """Collects nodes and initializers. The ONNX forms of operators (:mod:`emitters`) write with it.

    Tensors get short numbered names: long ones would be a tenth of a small network's file. Nodes keep
    the name of their layer.

    Attributes:
        contract: of the file.
        ranks: number of axes of each node's value, by the node's name.
        quantized: the network is a student.
        nodes, initializers: of the file.
        taken: names that :meth:`unique` does not give.
        count: numbers given to names.
        packed: store weights of few bits in few bits.
        opset: of the file.
        six_bit: weights of 5 and 6 bits, by the name of their INT8 tensor.
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
        """Add a node named ``op/name`` (op in lower case) and return the name of its output."""
        output = self.unique("t")
        label = f"{op.lower()}/{name}" if name else ""
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=label, **attrs))
        return output

    def quantize(
        self, source: str, name: str, scale: float, zero_point: int, codes: tuple[int, int, bool]
    ) -> Value:
        """From a float tensor to codes; ``codes`` is (qmin, qmax, signed).

        An integer Clip limits the codes where qmin and qmax are not those of the type.
        """
        qmin, qmax, signed = codes
        value = self.with_parameters(Value("", scale, zero_point, qmin, qmax, signed))
        quantized = self.node("QuantizeLinear", (source, *value.parameters), name)
        value = value.renamed(quantized)
        limits = np.iinfo(value.dtype)
        whole = (qmin, qmax) == (limits.min, limits.max)
        return value if whole else self.clip(value, qmin, qmax, name)

    def with_parameters(self, value: Value) -> Value:
        """A value of codes, with initializers of its scale and zero point."""
        scale = self.constant(np.float32(value.scale or 0), np.float32)
        return replace(value, constants=(scale, self.constant(value.zero_point, value.dtype)))

    def clip(self, value: Value, low: int, high: int, name: str) -> Value:
        """Limit codes to [low, high] in integers. The runtimes want both bounds."""
        bounds = (
            self.constant(low, value.dtype),
            self.constant(high, value.dtype),
        )
        return value.renamed(self.node("Clip", (value.name, *bounds), name))

    def dequantize(self, value: Value) -> str:
        """From codes to float. The runtimes fuse this into the integer kernel that follows."""
        if not value.is_codes:
            return value.name
        return self.node("DequantizeLinear", (value.name, *value.parameters), "")

    def weight(
        self, codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float32], bits: int, axis: int = 0
    ) -> tuple[str, str]:
        """int8 weight codes with one scale per output channel; output channels lie along ``axis``.

        Returns the names of the dequantized weight and of its scales. Zero points, all zeros, are
        written where ONNX Runtime needs them: it does not fuse a Gemm without them, and without VNNI it
        makes weights of 8 bits unsigned.
        """
        scale = self.constant(scales, np.float32)
        operands = [self._stored(codes, bits), scale]
        if codes.ndim == 2 or bits > _UNSATURATED:
            operands.append(self.constant(np.zeros(len(scales)), np.int8))
        return self.node("DequantizeLinear", operands, "", axis=axis), scale

    def _stored(self, codes: npt.NDArray[np.int8], bits: int) -> str:
        """The name of the INT8 tensor of codes, which are stored in few bits where ``packed``."""
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
        """Put the operators that unpack 6-bit weights first. Call it once, at the end."""
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
        """An int32 bias in units of input scale times weight scale, dequantized.

        The runtime multiplies both scales when it loads the file. Stored products would be a third of
        what a layer takes beside its weights.

        Args:
            bias: real values (O,).
            source: the codes that the layer reads.
            scales: name and values (O,) of the weight's scales.
            name: of the layer, for the error.

        Raises:
            ExportError: a bias does not fit into int32.
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
    """A tensor's values as a NumPy array on the CPU."""
    return np.asarray(tensor.detach().cpu().numpy())
