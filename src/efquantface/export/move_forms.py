"""ONNX forms of operators that work on the codes themselves: limits, padding, max pooling, moves."""

from __future__ import annotations

import numpy as np

from efquantface.export.attributes import pool_attributes
from efquantface.export.values import Value, Writer
from efquantface.graph import ops


def clamp(out: Writer, name: str, m: ops.Clamp, inputs: list[Value]) -> Value:
    """A limit: at zero on the codes themselves, at any other value in float."""
    value = inputs[0]
    if value.is_codes and m.low is None and m.high == 0:
        return out.clip(value, value.qmin, value.zero_point, name)
    if value.is_codes and m.low == 0 and m.high is None:
        return out.clip(value, value.zero_point, value.qmax, name)
    source = out.dequantize(value)
    if m.low == 0 and m.high is None:
        return Value(out.node("Relu", (source,), name))
    low = "" if m.low is None else out.constant(m.low, np.float32)
    high = "" if m.high is None else out.constant(m.high, np.float32)
    return Value(out.node("Clip", (source, low, high), name))


def pad(out: Writer, name: str, m: ops.ZeroPad, inputs: list[Value]) -> Value:
    """Padding with zeros: with the zero point where the input is codes."""
    front = [0] * (out.ranks[name] - 3)  # of (N,T,D) only the last two axes
    pads = [0, *front, m.top, m.left, 0, *(m.channels for _ in front), m.bottom, m.right]
    value = inputs[0]
    amounts = out.constant(pads, np.int64)
    fill = out.constant(value.zero_point, value.dtype if value.is_codes else np.float32)
    return value.renamed(out.node("Pad", (value.name, amounts, fill), name))


def max_pool(out: Writer, name: str, m: ops.MaxPool2d, inputs: list[Value]) -> Value:
    """Max pooling, of codes or floats."""
    return inputs[0].renamed(out.node("MaxPool", (inputs[0].name,), name, **pool_attributes(m)))


def flatten(out: Writer, name: str, m: ops.Flatten, inputs: list[Value]) -> Value:
    """Flattening, of codes or floats."""
    return inputs[0].renamed(out.node("Flatten", (inputs[0].name,), name, axis=1))


def reshape(out: Writer, name: str, m: ops.Reshape, inputs: list[Value]) -> Value:
    """A reshape, of codes or floats."""
    shape = out.constant([-1, *m.shape], np.int64)
    return inputs[0].renamed(out.node("Reshape", (inputs[0].name, shape), name))


def transpose(out: Writer, name: str, m: ops.Transpose, inputs: list[Value]) -> Value:
    """A transposition, of codes or floats."""
    return inputs[0].renamed(out.node("Transpose", (inputs[0].name,), name, perm=list(m.order)))


def slice_(out: Writer, name: str, m: ops.Slice, inputs: list[Value]) -> Value:
    """A part of an axis, of codes or floats."""
    limits = [out.constant([v], np.int64) for v in (m.start, m.stop, m.axis)]
    return inputs[0].renamed(out.node("Slice", (inputs[0].name, *limits), name))


def pick(out: Writer, name: str, m: ops.Pick, inputs: list[Value]) -> Value:
    """Entries of an axis in any order, of codes or floats."""
    indices = out.constant(m.indices, np.int64)
    return inputs[0].renamed(out.node("Gather", (inputs[0].name, indices), name, axis=m.axis))
