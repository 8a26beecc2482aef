"""ONNX forms of what transformer-like backbones have between their integer layers.

What moves values does so on the codes; the rest is computed in float, in the forms that ONNX Runtime
and OpenVINO fuse (GELU by its Erf, a float linear layer by MatMul and Add).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from efquantface.export.values import OnnxBuilder, Value
from efquantface.graph.islands import (
    Concat,
    Gelu,
    L2Normalize,
    LayerNorm,
    MatMul,
    Reshape,
    Scale,
    Shift,
    Slice,
    Softmax,
    Transpose,
)
from efquantface.quantize.layers import QuantLinear

_AXES_ARE_INPUTS = 18  # opset from which ReduceL2 takes its axes as an input

Emitter = Callable[[OnnxBuilder, str, Any, list[Value]], Value]


def rows_linear(out: OnnxBuilder, name: str, m: nn.Linear, inputs: list[Value]) -> Value:
    """A float linear layer over the last axis of any tensor."""
    weight = out.constant(_array(m.weight).T, np.float32)
    product = out.node("MatMul", (out.dequantize(inputs[0]), weight), name)
    return Value(out.node("Add", (product, out.constant(_array(m.bias), np.float32)), name))


def quantized_rows_linear(
    out: OnnxBuilder, name: str, m: QuantLinear, inputs: list[Value]
) -> Value:
    """Codes times int8 weights, float out (MatMulIntegerToFloat), and a float bias."""
    codes, steps = (_array(t) for t in m.weight_codes())
    weight, _ = out.weight(np.ascontiguousarray(codes.T), steps, m.bits, axis=1)
    product = out.node("MatMul", (out.dequantize(inputs[0]), weight), name)
    return Value(out.node("Add", (product, out.constant(_array(m.bias), np.float32)), name))


def _reshape(out: OnnxBuilder, name: str, m: Reshape, inputs: list[Value]) -> Value:
    shape = out.constant([-1, *m.shape], np.int64)
    return inputs[0].renamed(out.node("Reshape", (inputs[0].name, shape), name))


def _transpose(out: OnnxBuilder, name: str, m: Transpose, inputs: list[Value]) -> Value:
    return inputs[0].renamed(out.node("Transpose", (inputs[0].name,), name, perm=list(m.order)))


def _slice(out: OnnxBuilder, name: str, m: Slice, inputs: list[Value]) -> Value:
    limits = [out.constant([v], np.int64) for v in (m.start, m.stop, m.axis)]
    return inputs[0].renamed(out.node("Slice", (inputs[0].name, *limits), name))


def _concat(out: OnnxBuilder, name: str, m: Concat, inputs: list[Value]) -> Value:
    return Value(out.node("Concat", [out.dequantize(v) for v in inputs], name, axis=m.axis))


def _layer_norm(out: OnnxBuilder, name: str, m: LayerNorm, inputs: list[Value]) -> Value:
    weight, bias = (out.constant(_array(v), np.float32) for v in (m.weight, m.bias))
    operands = (out.dequantize(inputs[0]), weight, bias)
    return Value(out.node("LayerNormalization", operands, name, axis=-1, epsilon=m.eps))


def _gelu(out: OnnxBuilder, name: str, m: Gelu, inputs: list[Value]) -> Value:
    x = out.dequantize(inputs[0])
    scaled = out.node("Div", (x, out.constant(np.sqrt(2.0), np.float32)), f"{name}_scaled")
    bent = out.node("Erf", (scaled,), name)
    shifted = out.node("Add", (bent, out.constant(1.0, np.float32)), f"{name}_shifted")
    product = out.node("Mul", (x, shifted), f"{name}_product")
    return Value(out.node("Mul", (product, out.constant(0.5, np.float32)), f"{name}_half"))


def _softmax(out: OnnxBuilder, name: str, m: Softmax, inputs: list[Value]) -> Value:
    return Value(out.node("Softmax", (out.dequantize(inputs[0]),), name, axis=-1))


def _l2_normalize(out: OnnxBuilder, name: str, m: L2Normalize, inputs: list[Value]) -> Value:
    x = out.dequantize(inputs[0])
    if out.opset >= _AXES_ARE_INPUTS:
        length = out.node("ReduceL2", (x, out.constant([-1], np.int64)), name, keepdims=1)
    else:
        length = out.node("ReduceL2", (x,), name, axes=[-1], keepdims=1)
    at_least = out.node("Max", (length, out.constant(m.eps, np.float32)), f"{name}_floor")
    return Value(out.node("Div", (x, at_least), f"{name}_unit"))


def _matmul(out: OnnxBuilder, name: str, m: MatMul, inputs: list[Value]) -> Value:
    return Value(out.node("MatMul", [out.dequantize(v) for v in inputs], name))


def _scale(out: OnnxBuilder, name: str, m: Scale, inputs: list[Value]) -> Value:
    weight = out.constant(_array(m.weight), np.float32)
    return Value(out.node("Mul", (out.dequantize(inputs[0]), weight), name))


def _shift(out: OnnxBuilder, name: str, m: Shift, inputs: list[Value]) -> Value:
    bias = out.constant(_array(m.bias), np.float32)
    return Value(out.node("Add", (out.dequantize(inputs[0]), bias), name))


def _array(tensor: Tensor) -> npt.NDArray[Any]:
    return np.asarray(tensor.detach().cpu().numpy())


ISLAND_EMITTERS: dict[type[nn.Module], Emitter] = {
    Reshape: _reshape,
    Transpose: _transpose,
    Slice: _slice,
    Concat: _concat,
    LayerNorm: _layer_norm,
    Gelu: _gelu,
    Softmax: _softmax,
    L2Normalize: _l2_normalize,
    MatMul: _matmul,
    Scale: _scale,
    Shift: _shift,
}
