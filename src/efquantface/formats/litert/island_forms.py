"""LiteRT forms of islands: what stays in float between integer layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from efquantface.formats.litert.function_forms import with_number
from efquantface.formats.litert.value_forms import joined
from efquantface.formats.litert.values import Value
from efquantface.formats.litert.writer import Array, Writer, array
from efquantface.graph import ops

REDUCTIONS = {"max": "REDUCE_MAX", "mean": "MEAN", "min": "REDUCE_MIN", "sum": "SUM"}


def concat(out: Writer, name: str, m: ops.Concat, inputs: list[Value]) -> Value:
    """Tensors concatenated along an axis, in float."""
    first = out.real(inputs[0])
    others = [out.laid(out.real(v), first.order) for v in inputs[1:]]
    return joined(out, [first, *others], m.axis % len(first.shape))


def layer_norm(out: Writer, name: str, m: ops.LayerNorm, inputs: list[Value]) -> Value:
    """A LayerNorm in float."""
    x = _standard(out, inputs[0], m.eps)
    x = out.float_op("MUL", (x.tensor, out.broadcast(array(m.weight), x)), x)
    return out.float_op("ADD", (x.tensor, out.broadcast(array(m.bias), x)), x)


def standardize(out: Writer, name: str, m: ops.Standardize, inputs: list[Value]) -> Value:
    """Mean 0 and variance 1 over the last axis, in float."""
    return _standard(out, inputs[0], m.eps)


def _standard(out: Writer, value: Value, eps: float) -> Value:
    x = out.real(value)
    mean = _reduced(out, "MEAN", x, (-1,))
    centred = out.float_op("SUB", (x.tensor, mean.tensor), x)
    squares = out.float_op("MUL", (centred.tensor, centred.tensor), x)
    variance = _reduced(out, "MEAN", squares, (-1,))
    safe = with_number(out, "ADD", variance, eps)
    factor = out.float_op("RSQRT", (safe.tensor,), variance)
    return out.float_op("MUL", (centred.tensor, factor.tensor), x)


def _reduced(out: Writer, op: str, x: Value, axes: tuple[int, ...]) -> Value:
    """A reduction that keeps the reduced axes, with length 1."""
    found = {axis % len(x.shape) for axis in axes}
    made = replace(x, shape=tuple(1 if a in found else s for a, s in enumerate(x.shape)))
    where = out.constant(sorted(x.at(axis) for axis in found), np.int32)
    return out.float_op(op, (x.tensor, where), made, keep_dims=1)


def gelu(out: Writer, name: str, m: ops.Gelu, inputs: list[Value]) -> Value:
    """A GELU in float."""
    x = out.real(inputs[0])
    return out.float_op("GELU", (x.tensor,), x)


def reduce(out: Writer, name: str, m: ops.Reduce, inputs: list[Value]) -> Value:
    """A reduction over axes, in float."""
    made = _reduced(out, REDUCTIONS[m.reduction], out.real(inputs[0]), m.axes)
    return made if m.keep else out.in_shape(made, out.shapes[name])


def softmax(out: Writer, name: str, m: ops.Softmax, inputs: list[Value]) -> Value:
    """A softmax over the last axis, in float."""
    x = out.real(inputs[0])
    if x.order[-1] != len(x.shape) - 1:
        x = out.laid(x)
    return out.float_op("SOFTMAX", (x.tensor,), x, beta=1.0)


def l2_normalize(out: Writer, name: str, m: ops.L2Normalize, inputs: list[Value]) -> Value:
    """Rows of length 1, in float."""
    x = out.real(inputs[0])
    squares = out.float_op("MUL", (x.tensor, x.tensor), x)
    total = _reduced(out, "SUM", squares, (-1,))
    length = out.float_op("SQRT", (total.tensor,), total)
    length = with_number(out, "MAXIMUM", length, m.eps)
    return out.float_op("DIV", (x.tensor, length.tensor), x)


def matmul(out: Writer, name: str, m: ops.MatMul, inputs: list[Value]) -> Value:
    """A product of two activations, in float."""
    first, second = (out.laid(out.real(v)) for v in inputs)
    made = replace(first, shape=out.shapes[name], order=tuple(range(len(out.shapes[name]))))
    return out.float_op("BATCH_MATMUL", (first.tensor, second.tensor), made)


def scale(out: Writer, name: str, m: ops.Scale, inputs: list[Value]) -> Value:
    """A trained factor, in float."""
    return _with_constant(out, "MUL", name, array(m.weight), inputs[0])


def shift(out: Writer, name: str, m: ops.Shift, inputs: list[Value]) -> Value:
    """A trained offset, in float."""
    return _with_constant(out, "ADD", name, array(m.bias), inputs[0])


def _with_constant(out: Writer, op: str, name: str, constant: Array, value: Value) -> Value:
    x = out.real(value)
    made = replace(x, shape=out.shapes[name])
    return out.float_op(op, (x.tensor, out.broadcast(constant, x)), made)
