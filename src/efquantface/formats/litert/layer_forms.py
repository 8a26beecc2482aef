"""LiteRT forms of layers with weights, in integers and in float."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from efquantface.formats.litert.schema import SAME, VALID
from efquantface.formats.litert.sums import compensated
from efquantface.formats.litert.values import LAST, Value
from efquantface.formats.litert.writer import Array, Writer, array
from efquantface.graph import ops
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear

Pair = tuple[int, int]


def quant_conv(out: Writer, name: str, m: QuantConv2d, inputs: list[Value]) -> Value:
    """An integer convolution. Its result is float where no quantizer reads it."""
    codes, scales = (array(t) for t in m.weight_codes())
    return _quant_conv(out, name, m, codes, scales, ops.conv_attrs(m), inputs[0])


def quant_affine(out: Writer, name: str, m: QuantAffine, inputs: list[Value]) -> Value:
    """A per-channel affine of codes, as a depthwise 1x1 convolution."""
    codes, scales = (array(t) for t in m.weight_codes())
    attrs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": m.channels}
    return _quant_conv(out, name, m, codes, scales, attrs, inputs[0])


def _quant_conv(
    out: Writer,
    name: str,
    m: QuantConv2d | QuantAffine,
    codes: Array,
    scales: Array,
    attrs: dict[str, Any],
    source: Value,
) -> Value:
    assert source.codes is not None, f"{name} reads a float tensor"
    quantizer = out.quantizers.get(name)
    if quantizer is None:
        return convolution(
            out, out.real(source), name, codes, array(m.quantized_bias()), attrs, scales
        )
    old = float(np.float32(out.student_scale(name))), float(np.float32(quantizer[1].qparams()[0]))
    new = float(source.codes.scale), float(out.scale_of(quantizer))
    bias_codes = rounded_bias(array(m.bias), np.float32(old[0]), scales)
    if new != old:
        scales = compensated(scales, old, new)
    bias = out.constant(bias_codes, np.int32, source.codes.scale * scales)
    source, options, made = _placed(out, source, name, codes.shape, attrs)
    op, weight, axis = _kernel(codes, source, attrs)
    operands = (source.tensor, out.constant(weight, np.int8, scales, axis), bias)
    return out.integer_op(
        op, operands, made, quantizer, **options, **_multiplier(op, codes, source)
    )


def conv(out: Writer, name: str, m: ops.Conv2d, inputs: list[Value]) -> Value:
    """A float convolution."""
    assert m.bias is not None
    weight, bias = array(m.weight), array(m.bias)
    return convolution(out, inputs[0], name, weight, bias, ops.conv_attrs(m))


def convolution(
    out: Writer,
    source: Value,
    name: str,
    weight: Array,
    bias: Array,
    attrs: dict[str, Any],
    scales: Array | None = None,
) -> Value:
    """A convolution of floats. With ``scales`` its weight is stored as codes."""
    source, options, made = _placed(out, source, name, weight.shape, attrs)
    op, stored, axis = _kernel(weight, source, attrs)
    tensor = _weight(out, stored, scales, axis)
    operands = (source.tensor, tensor, out.constant(bias))
    return out.float_op(op, operands, made, **options, **_multiplier(op, weight, source))


def _weight(out: Writer, weight: Array, scales: Array | None, axis: int) -> int:
    """A float layer's weight. With ``scales`` it is stored as codes, which runtimes unpack at load."""
    if scales is None:
        return out.constant(weight)
    codes = out.constant(weight, np.int8, scales, axis)
    return out.op("DEQUANTIZE", (codes,), out.float_tensor(weight.shape))


def _kernel(weight: Array, source: Value, attrs: dict[str, Any]) -> tuple[str, Array, int]:
    """The operator, the weight as this operator reads it, and the weight's axis of output channels."""
    if attrs["groups"] == source.shape[1] and attrs["groups"] > 1:
        return "DEPTHWISE_CONV_2D", np.ascontiguousarray(weight.transpose(1, 2, 3, 0)), 3
    return "CONV_2D", np.ascontiguousarray(weight.transpose(0, 2, 3, 1)), 0


def _multiplier(op: str, weight: Array, source: Value) -> dict[str, float]:
    return {"multiplier": len(weight) // source.shape[1]} if op == "DEPTHWISE_CONV_2D" else {}


def _placed(
    out: Writer, source: Value, name: str, kernel: tuple[int, ...], attrs: dict[str, Any]
) -> tuple[Value, dict[str, float], Value]:
    """The padded input, the options, and the value that a convolution computes."""
    stride, padding, dilation = (attrs[k] for k in ("stride", "padding", "dilation"))
    reach = (dilation[0] * (kernel[2] - 1) + 1, dilation[1] * (kernel[3] - 1) + 1)
    source, same = padded(out, out.laid(source, LAST), reach, stride, padding)
    options: dict[str, float] = {"padding": same, "stride_h": stride[0], "stride_w": stride[1]}
    options |= {"dilation_h": dilation[0], "dilation_w": dilation[1]}
    return source, options, Value(-1, out.shapes[name], LAST)


def padded(
    out: Writer, source: Value, reach: Pair, stride: Pair, padding: Pair
) -> tuple[Value, int]:
    """The input that windows read, and the padding that the operator itself does.

    LiteRT's own padding puts an odd zero at the end. Where ours is another padding, zeros are added in
    front of the operator.
    """
    if not any(padding):
        return source, VALID
    sizes = source.shape[2:]
    if all(map(_is_same, sizes, reach, stride, padding)):
        return source, SAME
    return zeros_around(out, source, (padding[0], padding[0], padding[1], padding[1])), VALID


def _is_same(size: int, reach: int, stride: int, padding: int) -> bool:
    made = -(-size // stride)
    total = max((made - 1) * stride + reach - size, 0)
    ours = (size + 2 * padding - reach) // stride + 1
    return total // 2 == padding and ours == made


def zeros_around(
    out: Writer, source: Value, around: tuple[int, int, int, int], channels: int = 0
) -> Value:
    """A map with zeros (of codes: the zero point) above, below, left, right, and behind its channels."""
    pads = np.zeros((len(source.shape), 2), np.int32)
    pads[-2:] = np.reshape(around, (2, 2))
    if channels:
        pads[1, 1] = channels
    shape = tuple(int(size) for size in np.asarray(source.shape) + pads.sum(1))
    amounts = out.constant(pads[list(source.order)], np.int32)
    return out.moved_op("PAD", (source.tensor, amounts), replace(source, shape=shape))


def integer_bias(out: Writer, bias: Array, scale: np.float32, scales: Array) -> int:
    """An int32 bias in units of input scale times weight scale, with these scales."""
    product = scale * scales.astype(np.float32)
    return out.constant(rounded_bias(bias, scale, scales), np.int32, product)


def rounded_bias(bias: Array, scale: np.float32, scales: Array) -> Array:
    """A bias in units of its scales, as whole float64 numbers."""
    product = scale * scales.astype(np.float32)
    return np.rint(bias.astype(np.float64) / product.astype(np.float64))


def quant_linear(out: Writer, name: str, m: QuantLinear, inputs: list[Value]) -> Value:
    """An integer linear layer. Of a vector, its result is float where no quantizer reads it."""
    source, (codes, scales) = inputs[0], (array(t) for t in m.weight_codes())
    quantizer = out.quantizers.get(name)
    if quantizer is None or len(source.shape) > 2:
        real = m.bias if len(source.shape) > 2 else m.quantized_bias()
        return _linear(out, out.real(source), codes, array(real), scales)
    assert source.codes is not None, f"{name} reads a float tensor"
    bias = integer_bias(out, array(m.bias), source.codes.scale, scales)
    weight = out.constant(_as_lying(codes, source), np.int8, scales)
    made = Value(-1, (1, len(codes)), (0, 1))
    return out.integer_op("FULLY_CONNECTED", (source.tensor, weight, bias), made, quantizer)


def linear(out: Writer, name: str, m: ops.Linear, inputs: list[Value]) -> Value:
    """A float linear layer over the last axis of a tensor of any rank."""
    return _linear(out, out.real(inputs[0]), array(m.weight), array(m.bias))


def _linear(
    out: Writer, source: Value, weight: Array, bias: Array, scales: Array | None = None
) -> Value:
    if len(source.shape) > 2 and source.order[-1] != len(source.shape) - 1:
        source = out.laid(source)
    tensor = _weight(out, _as_lying(weight, source), scales, 0)
    made = replace(source, shape=(*source.shape[:-1], len(weight)), columns=None)
    operands = (source.tensor, tensor, out.constant(bias))
    options = {"keep_dims": 1} if len(source.shape) > 2 else {}
    return out.float_op("FULLY_CONNECTED", operands, made, **options)


def _as_lying(weight: Array, source: Value) -> Array:
    """A weight with its columns in the order of the input's entries in memory."""
    return weight if source.columns is None else np.ascontiguousarray(weight[:, source.columns])


def affine(out: Writer, name: str, m: ops.Affine, inputs: list[Value]) -> Value:
    """A scale and a shift per channel, in float."""
    x = out.real(inputs[0])
    shape = (-1, *(1,) * (len(x.shape) - 2))
    factor, offset = (out.broadcast(array(v).reshape(shape), x) for v in (m.weight, m.bias))
    scaled = out.float_op("MUL", (x.tensor, factor), x)
    return out.float_op("ADD", (scaled.tensor, offset), x)


def prelu(out: Writer, name: str, m: ops.PReLU, inputs: list[Value]) -> Value:
    """A PReLU in float."""
    x = out.real(inputs[0])
    slope = array(m.slope).reshape(-1, *(1,) * (len(x.shape) - 2))
    alpha = slope[None].transpose(x.order)[0]  # without the batch
    return out.float_op("PRELU", (x.tensor, out.constant(alpha)), x)
