"""LiteRT forms of poolings, of codes or floats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from efquantface.formats.litert.layer_forms import (
    Pair,
    convolution,
    integer_bias,
    padded,
    zeros_around,
)
from efquantface.formats.litert.schema import SAME, VALID
from efquantface.formats.litert.value_forms import picked
from efquantface.formats.litert.values import LAST, Value
from efquantface.formats.litert.writer import Array, Writer
from efquantface.graph import ops

# code of a pool's weights. A large one makes LiteRT's own kernels round finer. A power of two makes
# XNNPACK's kernels compute what they compute with ones
POOLED = 64
_SUMMED = 64  # places of a map, at most


def global_pool(out: Writer, name: str, m: ops.GlobalAvgPool, inputs: list[Value]) -> Value:
    """The mean over height and width."""
    x = out.laid(inputs[0], LAST)
    made = replace(x, shape=(*x.shape[:2], 1, 1))
    size = (x.shape[2], x.shape[3])
    if is_summed(size) and x.codes is not None and name in out.quantizers:
        return _sums(out, name, x, made, size, (1, 1), VALID, size[0] * size[1])
    operands = (x.tensor, out.constant([1, 2], np.int32))
    quantizer = out.quantizers.get(name)
    if x.codes is not None and quantizer is not None:
        return out.integer_op("MEAN", operands, made, quantizer, keep_dims=1)
    return out.float_op("MEAN", (out.real(x).tensor, operands[1]), made, keep_dims=1)


def is_summed(size: Pair) -> bool:
    """Whether the mean of a map of codes is a depthwise convolution.

    LiteRT's own kernel of means rounds the zero point to a whole code, so a convolution is better. It is
    not used for large maps, whose weights would be too many.
    """
    return size[0] * size[1] <= _SUMMED


def _sums(
    out: Writer,
    name: str,
    x: Value,
    made: Value,
    kernel: Pair,
    stride: Pair,
    padding: int,
    count: float,
) -> Value:
    """Sums of windows of codes, divided by ``count``: a depthwise convolution with equal weights."""
    assert x.codes is not None
    channels = x.shape[1]
    scales = np.full(channels, 1 / (count * POOLED), np.float32)
    weight = out.constant(np.full((1, *kernel, channels), POOLED), np.int8, scales, 3)
    bias = integer_bias(out, np.zeros(channels), x.codes.scale, scales)
    options = {"padding": padding, "stride_h": stride[0], "stride_w": stride[1]}
    options |= {"dilation_h": 1, "dilation_w": 1, "multiplier": 1}
    operands, quantizer = (x.tensor, weight, bias), out.quantizers[name]
    return out.integer_op("DEPTHWISE_CONV_2D", operands, made, quantizer, **options)


def avg_pool(out: Writer, name: str, m: ops.AvgPool2d, inputs: list[Value]) -> Value:
    """Average pooling: sums of a depthwise convolution, divided by the number of values."""
    x, attrs = out.laid(inputs[0], LAST), m.attrs()
    made = Value(-1, out.shapes[name], LAST)
    counts, behind = _counts(m, x, made)
    kernel, stride, channels = attrs["kernel_size"], attrs["stride"], x.shape[1]
    if any(behind):
        x = zeros_around(out, x, (0, behind[0], 0, behind[1]))
    same = bool((counts == counts.flat[0]).all())
    if x.codes is not None and name in out.quantizers and same:
        x, padding = padded(out, x, kernel, stride, attrs["padding"])
        return _sums(out, name, x, made, kernel, stride, padding, float(counts.flat[0]))
    each = 1 / float(counts.flat[0]) if same else 1.0
    weight = np.full((channels, 1, *kernel), each, np.float32)
    window = {**attrs, "dilation": (1, 1), "groups": channels}
    x = convolution(out, out.real(x), name, weight, np.zeros(channels), window)
    if same:
        return x
    return out.float_op("MUL", (x.tensor, out.broadcast(1 / counts, x)), x)


def _counts(m: ops.AvgPool2d, x: Value, made: Value) -> tuple[Array, tuple[int, int]]:
    """The number of values in each window (1,1,H,W); how many zeros to add behind height, width."""
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
    """Max pooling, of codes or floats. Padding repeats the border, which changes no maximum."""
    x, attrs = out.laid(inputs[0], LAST), m.attrs()
    kernel, stride, padding = attrs["kernel_size"], attrs["stride"], attrs["padding"]
    made = replace(x, shape=out.shapes[name])
    if any(step > size for step, size in zip(stride, kernel, strict=True)):
        return _pooled_apart(out, x, kernel, stride, padding, made)
    return _pooled(out, x, kernel, stride, padding, made)


def _pooled(out: Writer, x: Value, kernel: Pair, stride: Pair, padding: Pair, made: Value) -> Value:
    same = VALID
    if any(padding) and _fits_same(x, kernel, stride, padding, made):
        same = SAME
    else:
        for i in (0, 1):
            size = x.shape[2 + i]
            end = (made.shape[2 + i] - 1) * stride[i] + kernel[i] - padding[i]
            x = picked(out, x, 2 + i, np.clip(np.arange(-padding[i], max(end, size)), 0, size - 1))
    options = {"padding": same, "stride_h": stride[0], "stride_w": stride[1]}
    options |= {"filter_h": kernel[0], "filter_w": kernel[1]}
    return out.moved_op("MAX_POOL_2D", (x.tensor,), made, **options)


def _pooled_apart(
    out: Writer, x: Value, kernel: Pair, stride: Pair, padding: Pair, made: Value
) -> Value:
    """Windows with places between them, which XNNPACK does not compute.

    All windows are computed; a depthwise convolution by ones picks some of them, exactly.
    """
    wide = [(made.shape[2 + i] - 1) * stride[i] + 1 for i in (0, 1)]
    every = replace(x, shape=(*x.shape[:2], *wide))
    if max(kernel) > 1:
        x = _pooled(out, x, kernel, (1, 1), padding, every)
    channels = x.shape[1]
    ones, scales = np.ones((1, 1, 1, channels)), np.ones(channels, np.float32)
    zeros = np.zeros(channels, np.float32)
    if x.codes is None:
        operands = (x.tensor, out.constant(ones), out.constant(zeros))
    else:
        weight = out.constant(ones, np.int8, scales, 3)
        operands = (x.tensor, weight, integer_bias(out, zeros, x.codes.scale, scales))
    options = {"padding": VALID, "stride_h": stride[0], "stride_w": stride[1]}
    options |= {"dilation_h": 1, "dilation_w": 1, "multiplier": 1}
    return out.moved_op("DEPTHWISE_CONV_2D", operands, made, **options)


def _fits_same(x: Value, kernel: Pair, stride: Pair, padding: Pair, made: Value) -> bool:
    for i in (0, 1):
        size, wanted = x.shape[2 + i], -(-x.shape[2 + i] // stride[i])
        total = max((wanted - 1) * stride[i] + kernel[i] - size, 0)
        if total // 2 != padding[i] or wanted != made.shape[2 + i]:
            return False
    return True
