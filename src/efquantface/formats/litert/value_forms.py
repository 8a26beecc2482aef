"""LiteRT forms of sums, products, averages and limits, of codes or floats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from efquantface.formats.litert.function_forms import with_number
from efquantface.formats.litert.layer_forms import (
    convolution,
    integer_bias,
    padded,
    zeros_around,
)
from efquantface.formats.litert.schema import SAME, VALID
from efquantface.formats.litert.values import LAST, Codes, Value
from efquantface.formats.litert.writer import Array, Writer
from efquantface.graph import ops
from efquantface.quantize.fake_quant import ActivationQuantizer

# code of a pool's weights: larger ones let LiteRT's own kernels round finer, and it is a power of two,
# so that XNNPACK's give what ones give
POOLED = 64
_AT_ONCE = 4  # of concatenations that XNNPACK takes
# ratios of scales that XNNPACK's integer kernels take
_SUM, _PRODUCT = (2.0**-10, 2.0**8), (2.0**-16, 2.0**8)


def quantizer(out: Writer, name: str, m: ActivationQuantizer, inputs: list[Value]) -> Value:
    """The codes that the operator in front gives already, or those of a float value."""
    if inputs[0].codes is not None:
        assert out.tensors[inputs[0].tensor].name == name, f"{name} reads codes"
        return inputs[0]
    return out.quantized(inputs[0], name, m)


def add(out: Writer, name: str, m: ops.Add, inputs: list[Value]) -> Value:
    """A sum."""
    return _of_two(out, "ADD", name, inputs, _sum_fits)


def multiply(out: Writer, name: str, m: ops.Multiply, inputs: list[Value]) -> Value:
    """A product."""
    return _of_two(out, "MUL", name, inputs, _product_fits)


def _of_two(out: Writer, op: str, name: str, inputs: list[Value], fits: Any) -> Value:
    first, second = inputs[0], out.laid(inputs[1], inputs[0].order)
    made = replace(first, shape=out.shapes[name], columns=None)
    quantizer = out.quantizers.get(name)
    if first.codes and second.codes and quantizer is not None:
        scale = float(quantizer[1].qparams()[0])
        if fits(float(first.codes.scale), float(second.codes.scale), scale):
            return out.integer_op(op, (first.tensor, second.tensor), made, quantizer)
    operands = (out.real(first).tensor, out.real(second).tensor)
    return out.float_op(op, operands, made)


def _sum_fits(first: float, second: float, made: float) -> bool:
    return all(_SUM[0] <= scale / made < _SUM[1] for scale in (first, second))


def _product_fits(first: float, second: float, made: float) -> bool:
    return _PRODUCT[0] <= first * second / made < _PRODUCT[1]


def sigmoid(out: Writer, name: str, m: ops.Sigmoid, inputs: list[Value]) -> Value:
    """A sigmoid in float: the integer one has a fixed scale."""
    x = out.real(inputs[0])
    return out.float_op("LOGISTIC", (x.tensor,), x)


def clamp(out: Writer, name: str, m: ops.Clamp, inputs: list[Value]) -> Value:
    """A limit: at the zero point by where codes are stored, elsewhere in float."""
    x, limits = inputs[0], (m.low, m.high)
    if x.codes is not None and limits in ((None, 0), (0, None)):
        zero_point = 127 if m.low is None else -128
        offset = x.codes.offset + zero_point - x.codes.zero_point
        return out.moved(x, Codes(x.codes.scale, zero_point, offset))
    x = out.real(x)
    if limits in ((0, None), (0, 6)):
        return out.float_op("RELU" if m.high is None else "RELU6", (x.tensor,), x)
    for op, limit in (("MAXIMUM", m.low), ("MINIMUM", m.high)):
        if limit is not None:
            x = with_number(out, op, x, limit)
    return x


def global_pool(out: Writer, name: str, m: ops.GlobalAvgPool, inputs: list[Value]) -> Value:
    """The mean over height and width."""
    x = out.laid(inputs[0], LAST)
    made = replace(x, shape=(*x.shape[:2], 1, 1))
    operands = (x.tensor, out.constant([1, 2], np.int32))
    quantizer = out.quantizers.get(name)
    if x.codes is not None and quantizer is not None:
        return out.integer_op("MEAN", operands, made, quantizer, keep_dims=1)
    return out.float_op("MEAN", (out.real(x).tensor, operands[1]), made, keep_dims=1)


def avg_pool(out: Writer, name: str, m: ops.AvgPool2d, inputs: list[Value]) -> Value:
    """Average pooling: sums by a depthwise convolution of ones, divided by how many there are."""
    x, attrs = out.laid(inputs[0], LAST), m.attrs()
    made = Value(-1, out.shapes[name], LAST)
    counts, behind = _counts(m, x, made)
    kernel, stride, channels = attrs["kernel_size"], attrs["stride"], x.shape[1]
    if any(behind):
        x = zeros_around(out, x, (0, behind[0], 0, behind[1]))
    quantizer, same = out.quantizers.get(name), bool((counts == counts.flat[0]).all())
    if x.codes is not None and quantizer is not None and same:
        x, padding = padded(out, x, kernel, stride, attrs["padding"])
        scales = np.full(channels, 1 / (counts.flat[0] * POOLED), np.float32)
        ones = out.constant(np.full((1, *kernel, channels), POOLED), np.int8, scales, 3)
        assert x.codes is not None
        bias = integer_bias(out, np.zeros(channels), x.codes.scale, scales)
        options = {"padding": padding, "stride_h": stride[0], "stride_w": stride[1]}
        options |= {"dilation_h": 1, "dilation_w": 1, "multiplier": 1}
        operands = (x.tensor, ones, bias)
        return out.integer_op("DEPTHWISE_CONV_2D", operands, made, quantizer, **options)
    each = 1 / float(counts.flat[0]) if same else 1.0
    weight = np.full((channels, 1, *kernel), each, np.float32)
    window = {**attrs, "dilation": (1, 1), "groups": channels}
    x = convolution(out, out.real(x), name, weight, np.zeros(channels), window)
    if same:
        return x
    return out.float_op("MUL", (x.tensor, out.broadcast(1 / counts, x)), x)


def _counts(m: ops.AvgPool2d, x: Value, made: Value) -> tuple[Array, tuple[int, int]]:
    """What each window's sum is divided by (1,1,H,W), and zeros missing behind height and width."""
    ones = torch.ones(1, 1, *x.shape[2:])
    attrs = m.attrs()
    pad, kernel, stride = attrs["padding"], attrs["kernel_size"], attrs["stride"]
    behind = [
        max((made.shape[2 + i] - 1) * stride[i] + kernel[i] - x.shape[2 + i] - 2 * pad[i], 0)
        for i in (0, 1)
    ]
    wide = torch.nn.functional.pad(ones, (pad[1], pad[1] + behind[1], pad[0], pad[0] + behind[0]))
    weight = torch.ones(1, 1, *kernel)
    sums = torch.nn.functional.conv2d(wide, weight, stride=stride)
    sums = sums[:, :, : made.shape[2], : made.shape[3]]
    return np.asarray((sums / m(ones)).round().numpy()), (behind[0], behind[1])


def max_pool(out: Writer, name: str, m: ops.MaxPool2d, inputs: list[Value]) -> Value:
    """Max pooling, of codes as they are; borders are repeated, which changes no maximum."""
    x, attrs = out.laid(inputs[0], LAST), m.attrs()
    kernel, stride, padding = attrs["kernel_size"], attrs["stride"], attrs["padding"]
    made = replace(x, shape=out.shapes[name])
    ends = [
        (made.shape[2 + i] - 1) * stride[i] + kernel[i] - x.shape[2 + i] - padding[i]
        for i in (0, 1)
    ]
    same = VALID
    if any(padding) and _fits_same(x, kernel, stride, padding, made):
        same = SAME
    else:
        for axis, before, behind in ((2, padding[0], ends[0]), (3, padding[1], ends[1])):
            size = x.shape[axis]
            rows = np.clip(np.arange(-before, size + max(behind, 0)), 0, size - 1)
            x = picked(out, x, axis, rows)
    options = {"padding": same, "stride_h": stride[0], "stride_w": stride[1]}
    options |= {"filter_h": kernel[0], "filter_w": kernel[1]}
    return out.moved_op("MAX_POOL_2D", (x.tensor,), made, **options)


def _fits_same(x: Value, kernel: Any, stride: Any, padding: Any, made: Value) -> bool:
    for i in (0, 1):
        size, wanted = x.shape[2 + i], -(-x.shape[2 + i] // stride[i])
        total = max((wanted - 1) * stride[i] + kernel[i] - size, 0)
        if total // 2 != padding[i] or wanted != made.shape[2 + i]:
            return False
    return True


def picked(out: Writer, x: Value, axis: int, indices: Array) -> Value:
    """Entries of an axis in any order: runs of neighbours, one behind the other."""
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    runs = [(int(r[0]), int(r[-1]) + 1) for r in np.split(indices, breaks)]
    if runs == [(0, x.shape[axis])]:
        return x
    parts = [sliced(out, x, axis, *run) for run in runs]
    return joined(out, parts, axis)


def joined(out: Writer, parts: list[Value], axis: int) -> Value:
    """Values of one layout behind each other, a few at once."""
    while len(parts) > 1:
        groups = [parts[at : at + _AT_ONCE] for at in range(0, len(parts), _AT_ONCE)]
        parts = [group[0] if len(group) == 1 else _joined(out, group, axis) for group in groups]
    return parts[0]


def _joined(out: Writer, parts: list[Value], axis: int) -> Value:
    first = parts[0]
    length = sum(part.shape[axis] for part in parts)
    made = replace(first, shape=(*first.shape[:axis], length, *first.shape[axis + 1 :]))
    tensors = tuple(part.tensor for part in parts)
    return out.moved_op("CONCATENATION", tensors, made, axis=first.at(axis))


def sliced(out: Writer, x: Value, axis: int, start: int, stop: int) -> Value:
    """A part of an axis; the batch stays open."""
    begin, end = [0] * len(x.shape), [0] * len(x.shape)
    at = x.at(axis)
    begin[at], end[at] = start, stop
    others = sum(1 << place for place in range(len(begin)) if place != at)
    made = replace(x, shape=(*x.shape[:axis], stop - start, *x.shape[axis + 1 :]))
    operands = (begin, end, [1] * len(begin))
    tensors = (x.tensor, *(out.constant(values, np.int32) for values in operands))
    return out.moved_op("STRIDED_SLICE", tensors, made, begin_mask=others, end_mask=others)
