"""ONNX forms of islands: what stays in float between integer layers.

The forms are those that ONNX Runtime and OpenVINO fuse. GELU is written with Erf.
"""

from __future__ import annotations

import numpy as np

from efquantface.export.values import Value, Writer, array
from efquantface.graph import ops

_AXES_ARE_INPUTS = 18  # opset from which reductions take their axes as an input


def concat(out: Writer, name: str, m: ops.Concat, inputs: list[Value]) -> Value:
    """Tensors concatenated along an axis, in float."""
    return Value(out.node("Concat", [out.dequantize(v) for v in inputs], name, axis=m.axis))


def layer_norm(out: Writer, name: str, m: ops.LayerNorm, inputs: list[Value]) -> Value:
    """A LayerNorm in float."""
    weight, bias = (out.constant(array(v), np.float32) for v in (m.weight, m.bias))
    operands = (out.dequantize(inputs[0]), weight, bias)
    return Value(out.node("LayerNormalization", operands, name, axis=-1, epsilon=m.eps))


def gelu(out: Writer, name: str, m: ops.Gelu, inputs: list[Value]) -> Value:
    """A GELU in float, in the form that the runtimes fuse."""
    x = out.dequantize(inputs[0])
    scaled = out.node("Div", (x, out.constant(np.sqrt(2.0), np.float32)), f"{name}_scaled")
    bent = out.node("Erf", (scaled,), name)
    shifted = out.node("Add", (bent, out.constant(1.0, np.float32)), f"{name}_shifted")
    product = out.node("Mul", (x, shifted), f"{name}_product")
    return Value(out.node("Mul", (product, out.constant(0.5, np.float32)), f"{name}_half"))


def standardize(out: Writer, name: str, m: ops.Standardize, inputs: list[Value]) -> Value:
    """Mean 0 and variance 1 over the last axis of (N,G,L), in float."""
    one = out.constant(np.ones(m.groups), np.float32)
    zero = out.constant(np.zeros(m.groups), np.float32)
    operands = (out.dequantize(inputs[0]), one, zero)
    return Value(out.node("InstanceNormalization", operands, name, epsilon=m.eps))


def function(out: Writer, name: str, m: ops.Function, inputs: list[Value]) -> Value:
    """A function of each value, in float."""
    x = out.dequantize(inputs[0])
    if m.function == "pow":
        return Value(out.node("Pow", (x, out.constant(m.value, np.float32)), name))
    attrs = {"alpha": m.value} if m.function == "elu" else {}
    return Value(out.node(m.function.capitalize(), (x,), name, **attrs))


def reduce(out: Writer, name: str, m: ops.Reduce, inputs: list[Value]) -> Value:
    """A reduction over axes, in float."""
    x, keep = out.dequantize(inputs[0]), int(m.keep)
    op = f"Reduce{m.reduction.capitalize()}"
    if m.reduction == "sum" or out.opset >= _AXES_ARE_INPUTS:
        axes = out.constant(m.axes, np.int64)
        return Value(out.node(op, (x, axes), name, keepdims=keep))
    return Value(out.node(op, (x,), name, axes=m.axes, keepdims=keep))


def softmax(out: Writer, name: str, m: ops.Softmax, inputs: list[Value]) -> Value:
    """A softmax in float."""
    return Value(out.node("Softmax", (out.dequantize(inputs[0]),), name, axis=-1))


def l2_normalize(out: Writer, name: str, m: ops.L2Normalize, inputs: list[Value]) -> Value:
    """Rows of length 1, in float."""
    x = out.dequantize(inputs[0])
    if out.opset >= _AXES_ARE_INPUTS:
        length = out.node("ReduceL2", (x, out.constant([-1], np.int64)), name, keepdims=1)
    else:
        length = out.node("ReduceL2", (x,), name, axes=[-1], keepdims=1)
    at_least = out.node("Max", (length, out.constant(m.eps, np.float32)), f"{name}_floor")
    return Value(out.node("Div", (x, at_least), f"{name}_unit"))


def matmul(out: Writer, name: str, m: ops.MatMul, inputs: list[Value]) -> Value:
    """A product of two activations, in float."""
    return Value(out.node("MatMul", [out.dequantize(v) for v in inputs], name))


def scale(out: Writer, name: str, m: ops.Scale, inputs: list[Value]) -> Value:
    """A trained factor, in float."""
    weight = out.constant(array(m.weight), np.float32)
    return Value(out.node("Mul", (out.dequantize(inputs[0]), weight), name))


def shift(out: Writer, name: str, m: ops.Shift, inputs: list[Value]) -> Value:
    """A trained offset, in float."""
    bias = out.constant(array(m.bias), np.float32)
    return Value(out.node("Add", (out.dequantize(inputs[0]), bias), name))
