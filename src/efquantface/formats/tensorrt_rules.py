"""What TensorRT's ONNX parser and explicit quantization ask of a file, read from the file itself.

The rules have two sources. onnx-tensorrt's importers of QuantizeLinear and DequantizeLinear: all scales
positive, all zero points zero, as many zero points as scales, no UINT8, no int32 as an activation type
(onnx-tensorrt #850, onnxruntime #14229). NVIDIA's guide "Explicit Quantization": input and weight of a
layer quantized, one scale per tensor of activations, one per output channel of weights.

INT4 weights are for blocked matrix products only, so weights of fewer bits are stored as int8. Two rules
are stricter than the parser, which leaves them to its optimizer: constants are initializers, and moves
read and give floats.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

OPSETS = range(13, 18)  # DequantizeLinear has an axis from 13 on; TensorRT 8.6 reads up to 17
OPERATORS = frozenset(
    (
        *("Abs", "Add", "AveragePool", "Ceil", "Clip", "Concat", "Conv", "Cos", "DequantizeLinear"),
        *("Div", "Elu", "Erf", "Exp", "Flatten", "Floor", "Gather", "Gemm", "GlobalAveragePool"),
        *("InstanceNormalization", "LayerNormalization", "Log", "MatMul", "Max", "MaxPool", "Mul"),
        *("PRelu", "Pad", "Pow", "QuantizeLinear", "ReduceL2", "ReduceMax", "ReduceMean"),
        *("ReduceMin", "ReduceSum", "Relu", "Reshape", "Round", "Sigmoid", "Sign", "Sin", "Slice"),
        *("Softmax", "Softplus", "Tanh", "Transpose"),
    )
)
_PAIR = ("QuantizeLinear", "DequantizeLinear")
_LAYERS = ("Conv", "Gemm", "MatMul")


def broken_rules(model: ModelProto) -> list[str]:
    """Where a file breaks a rule, one sentence each with the node's name; empty where it keeps all."""
    return list(_File(model).problems())


class _File:
    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.stored = {i.name: i for i in model.graph.initializer}
        self.makers = {out: node for node in model.graph.node for out in node.output}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self.readers[name].append(node)

    def problems(self) -> Iterator[str]:
        opsets = {entry.domain: entry.version for entry in self.model.opset_import}
        if set(opsets) != {""} or opsets[""] not in OPSETS:
            yield f"operators of {opsets}, not of ONNX opset {OPSETS[0]} to {OPSETS[-1]}"
        known = Counter(n.op_type for n in self.model.graph.node if n.op_type not in OPERATORS)
        for op, count in known.items():
            yield f"{count} {op}, which TensorRT's parser does not import"
        for node in self.model.graph.node:
            for said in self._of(node):
                yield f"{said} ({node.name or node.output[0]})"

    def _of(self, node: NodeProto) -> Iterator[str]:
        """The rules that one node breaks."""
        if node.op_type in _PAIR:
            yield from self._constants(node)
            yield from self._quantize(node) if node.op_type == _PAIR[0] else self._dequantize(node)
            return
        if all(name in self.stored for name in node.input if name):
            yield f"a {node.op_type} of constants alone, which are initializers"
        for name in node.input:
            if name in self.stored and self._type(name) in (TensorProto.INT8, TensorProto.UINT8):
                yield f"a {node.op_type} of stored codes"
        if node.op_type in _LAYERS:
            yield from self._layer(node)

    def _constants(self, node: NodeProto) -> Iterator[str]:
        """Rules on scale and zero point."""
        lost = [name for name in node.input[1:] if name not in self.stored]
        if len(node.input) != 3 or lost:
            yield "a scale or zero point that is no initializer"
            return
        scale, zero = (self._value(name) for name in node.input[1:])
        if self._type(node.input[1]) != TensorProto.FLOAT:
            yield "a scale that is not float32"
        elif not (np.isfinite(scale).all() and (scale > 0).all()):
            yield "a scale that is not above zero"
        if self._type(node.input[2]) != TensorProto.INT8 or zero.any():
            yield "a zero point that is not int8 zero"
        if zero.size != scale.size:
            yield f"{zero.size} zero points beside {scale.size} scales"

    def _quantize(self, node: NodeProto) -> Iterator[str]:
        """Rules on a QuantizeLinear: one scale, read only by a DequantizeLinear of the same scale."""
        if node.input[0] in self.stored:
            yield "a QuantizeLinear of a constant"
        if node.input[1] in self.stored and self._value(node.input[1]).size != 1:
            yield "activations with a scale a channel"
        readers = self.readers[node.output[0]]
        if not readers or node.output[0] in {o.name for o in self.model.graph.output}:
            yield "codes that leave the file"
        for reader in readers:
            if reader.op_type != "DequantizeLinear":
                yield f"a {reader.op_type} of codes"
            elif not self._same(node.input[1], reader.input[1]):
                yield "codes that are dequantized with another scale"

    def _dequantize(self, node: NodeProto) -> Iterator[str]:
        """Rules on a DequantizeLinear: it reads a QuantizeLinear or a per-channel weight."""
        source = node.input[0]
        if source not in self.stored:
            if source not in self.makers or self.makers[source].op_type != "QuantizeLinear":
                yield "a DequantizeLinear of what no QuantizeLinear gives"
            return
        if self._type(source) != TensorProto.INT8:
            yield f"a DequantizeLinear of {TensorProto.DataType.Name(self._type(source))} constants"
        for reader in self.readers[node.output[0]]:
            if reader.op_type not in _LAYERS or reader.input[1] != node.output[0]:
                yield f"a {reader.op_type} of dequantized constants that are no weight"
                continue
            axis = 1 if reader.op_type == "MatMul" else 0
            channels = self.stored[source].dims[axis]
            if _attribute(node, "axis", 1) != axis or self._value(node.input[1]).size != channels:
                yield f"a weight without a scale for each of its {channels} outputs, along axis {axis}"

    def _layer(self, node: NodeProto) -> Iterator[str]:
        """Rules on a layer with a quantized weight: it reads dequantized codes and a float bias."""
        weight = self.makers.get(node.input[1])
        if weight is None or weight.op_type != "DequantizeLinear":
            return  # in float, or a product of activations
        if weight.input[0] not in self.stored:
            return
        source = self.makers.get(node.input[0])
        if source is None or source.op_type != "DequantizeLinear":
            yield f"a {node.op_type} whose input is not dequantized right in front of it"
        if node.op_type == "Gemm" and not _attribute(node, "transB", 0):
            yield "a Gemm whose weight is not transposed"
        for bias in node.input[2:]:
            if bias not in self.stored or self._type(bias) != TensorProto.FLOAT:
                yield f"a {node.op_type} whose bias is no float constant"

    def _type(self, name: str) -> int:
        return int(self.stored[name].data_type)

    def _value(self, name: str) -> npt.NDArray[Any]:
        return np.asarray(numpy_helper.to_array(self.stored[name]))

    def _same(self, first: str, second: str) -> bool:
        known = first in self.stored and second in self.stored
        return known and np.array_equal(self._value(first), self._value(second))


def _attribute(node: NodeProto, name: str, default: int) -> int:
    found = {a.name: int(a.i) for a in node.attribute if a.type == onnx.AttributeProto.INT}
    return found.get(name, default)
