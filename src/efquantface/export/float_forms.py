"""ONNX forms of float layers, and of sums, products and averages of codes or floats."""

from __future__ import annotations

import numpy as np

from efquantface.export.attributes import conv_attributes, pool_attributes
from efquantface.export.values import Value, Writer, array
from efquantface.graph import ops


def conv(out: Writer, name: str, m: ops.Conv2d, inputs: list[Value]) -> Value:
    """A float convolution."""
    assert m.bias is not None
    weight = out.constant(array(m.weight), np.float32)
    bias = out.constant(array(m.bias), np.float32)
    return Value(out.node("Conv", (inputs[0].name, weight, bias), name, **conv_attributes(m)))


def linear(out: Writer, name: str, m: ops.Linear, inputs: list[Value]) -> Value:
    """A float linear layer over the last axis of a tensor of any rank."""
    if out.ranks[name] > 2:
        return _rows(out, name, m, inputs)
    weight = out.constant(array(m.weight), np.float32)
    bias = out.constant(array(m.bias), np.float32)
    return Value(out.node("Gemm", (inputs[0].name, weight, bias), name, transB=1))


def _rows(out: Writer, name: str, m: ops.Linear, inputs: list[Value]) -> Value:
    weight = out.constant(array(m.weight).T, np.float32)
    product = out.node("MatMul", (out.dequantize(inputs[0]), weight), name)
    return Value(out.node("Add", (product, out.constant(array(m.bias), np.float32)), name))


def affine(out: Writer, name: str, m: ops.Affine, inputs: list[Value]) -> Value:
    """A scale and a shift per channel, in float."""
    source = out.dequantize(inputs[0])
    shaped = _per_channel(out.ranks[name])
    factor = out.constant(array(m.weight).reshape(1, *shaped), np.float32)
    offset = out.constant(array(m.bias).reshape(1, *shaped), np.float32)
    scaled = out.node("Mul", (source, factor), f"{name}_factor")
    return Value(out.node("Add", (scaled, offset), f"{name}_offset"))


def prelu(out: Writer, name: str, m: ops.PReLU, inputs: list[Value]) -> Value:
    """``a x + (1 - a) relu(x)``: ONNX Runtime runs it several times faster than its PRelu."""
    slope = array(m.slope).reshape(_per_channel(out.ranks[name]))
    factor = out.constant(slope, np.float32)
    if out.quantized and not inputs[0].is_codes and out.ranks[name] == 4:
        # a placement for OpenVINO, which fuses PRelu into the convolution
        return Value(out.node("PRelu", (inputs[0].name, factor), name))
    source = out.dequantize(inputs[0])
    rest = out.constant(1 - slope, np.float32)
    positive = out.node("Relu", (source,), name)
    linear = out.node("Mul", (source, factor), f"{name}_linear")
    bent = out.node("Mul", (positive, rest), f"{name}_bent")
    return Value(out.node("Add", (linear, bent), name))


def _per_channel(rank: int) -> tuple[int, ...]:
    """Shape of a constant with one value per channel, for tensors of ``rank`` axes."""
    return (-1, *(1,) * (rank - 2))


def add(out: Writer, name: str, m: ops.Add, inputs: list[Value]) -> Value:
    """A sum. The runtimes compute a sum of codes in integers."""
    operands = [out.dequantize(v) for v in inputs]
    return Value(out.node("Add", operands, name))


def multiply(out: Writer, name: str, m: ops.Multiply, inputs: list[Value]) -> Value:
    """A product. The runtimes compute a product of codes in integers."""
    operands = [out.dequantize(v) for v in inputs]
    return Value(out.node("Mul", operands, name))


def sigmoid(out: Writer, name: str, m: ops.Sigmoid, inputs: list[Value]) -> Value:
    """A sigmoid in float."""
    return Value(out.node("Sigmoid", (out.dequantize(inputs[0]),), name))


def avg_pool(out: Writer, name: str, m: ops.AvgPool2d, inputs: list[Value]) -> Value:
    """Average pooling."""
    source = out.dequantize(inputs[0])
    attrs = {**pool_attributes(m), "count_include_pad": int(m.count_include_pad)}
    return Value(out.node("AveragePool", (source,), name, **attrs))


def global_pool(out: Writer, name: str, m: ops.GlobalAvgPool, inputs: list[Value]) -> Value:
    """The mean over height and width."""
    source = out.dequantize(inputs[0])
    return Value(out.node("GlobalAveragePool", (source,), name))
