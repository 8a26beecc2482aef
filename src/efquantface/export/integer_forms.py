"""ONNX forms of a student's integer layers and quantizers."""

from __future__ import annotations

import numpy as np

from efquantface.export.attributes import conv_attributes
from efquantface.export.values import Value, Writer, array
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear


def quantizer(out: Writer, name: str, m: ActivationQuantizer, inputs: list[Value]) -> Value:
    """A quantizer on a float tensor, or on an integer layer's output."""
    scale, zero_point = m.qparams()
    return out.quantize(inputs[0].name, name, scale, zero_point, (m.qmin, m.qmax, m.symmetric))


def quant_conv(out: Writer, name: str, m: QuantConv2d, inputs: list[Value]) -> Value:
    """An integer convolution."""
    return Value(out.node("Conv", _operands(out, name, inputs[0], m), name, **conv_attributes(m)))


def quant_linear(out: Writer, name: str, m: QuantLinear, inputs: list[Value]) -> Value:
    """An integer linear layer. Over the last axis of a map its result is float."""
    if out.ranks[name] <= 2:
        return Value(out.node("Gemm", _operands(out, name, inputs[0], m), name, transB=1))
    return _rows(out, name, m, inputs)


def _rows(out: Writer, name: str, m: QuantLinear, inputs: list[Value]) -> Value:
    """Codes times int8 weights with a float result (MatMulIntegerToFloat), and a float bias."""
    codes, scales = (array(t) for t in m.weight_codes())
    weight, _ = out.weight(np.ascontiguousarray(codes.T), scales, m.bits, axis=1)
    product = out.node("MatMul", (out.dequantize(inputs[0]), weight), name)
    return Value(out.node("Add", (product, out.constant(array(m.bias), np.float32)), name))


def quant_affine(out: Writer, name: str, m: QuantAffine, inputs: list[Value]) -> Value:
    """A per-channel affine of codes, as a depthwise 1x1 convolution."""
    operands = _operands(out, name, inputs[0], m)
    return Value(out.node("Conv", operands, name, group=m.channels))


def _operands(
    out: Writer, name: str, source: Value, m: QuantConv2d | QuantLinear | QuantAffine
) -> tuple[str, ...]:
    """Dequantized input, weight and bias of an integer layer."""
    assert source.scale is not None, f"{name} reads a float tensor"
    codes, scales = (array(t) for t in m.weight_codes())
    weight, scale = out.weight(codes, scales, m.bits)
    operands = (out.dequantize(source), weight)
    bias = array(m.bias)
    if not bias.any() and isinstance(m, QuantAffine):  # a PReLU's slopes
        return operands
    return (*operands, out.bias(bias, source, (scale, scales), name))
