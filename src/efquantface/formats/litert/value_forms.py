"""LiteRT forms of sums, products, averages and limits, of codes or floats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from efquantface.formats.litert.function_forms import with_number
from efquantface.formats.litert.values import Codes, Value
from efquantface.formats.litert.writer import Array, Writer
from efquantface.graph import ops
from efquantface.quantize.fake_quant import ActivationQuantizer

_AT_ONCE = 4  # inputs of a concatenation in XNNPACK, at most
# ratios of scales that XNNPACK's integer kernels accept
_SUM, _PRODUCT = (2.0**-10, 2.0**8), (2.0**-16, 2.0**8)


def quantizer(out: Writer, name: str, m: ActivationQuantizer, inputs: list[Value]) -> Value:
    """The codes of a float value. Where the operator in front gives codes already, these."""
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
    """A sigmoid in float. LiteRT's integer sigmoid has a fixed scale."""
    x = out.real(inputs[0])
    return out.float_op("LOGISTIC", (x.tensor,), x)


def clamp(out: Writer, name: str, m: ops.Clamp, inputs: list[Value]) -> Value:
    """A limit: at zero by shifting codes to an end of int8, at any other value in float."""
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


def picked(out: Writer, x: Value, axis: int, indices: Array) -> Value:
    """Entries of an axis in any order, as concatenated runs of neighbours."""
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    runs = [(int(r[0]), int(r[-1]) + 1) for r in np.split(indices, breaks)]
    if runs == [(0, x.shape[axis])]:
        return x
    parts = [sliced(out, x, axis, *run) for run in runs]
    return joined(out, parts, axis)


def joined(out: Writer, parts: list[Value], axis: int) -> Value:
    """Values of one layout, concatenated a few at once."""
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
    """A part of an axis. The batch size stays open."""
    begin, end = [0] * len(x.shape), [0] * len(x.shape)
    at = x.at(axis)
    begin[at], end[at] = start, stop
    others = sum(1 << place for place in range(len(begin)) if place != at)
    made = replace(x, shape=(*x.shape[:axis], stop - start, *x.shape[axis + 1 :]))
    operands = (begin, end, [1] * len(begin))
    tensors = (x.tensor, *(out.constant(values, np.int32) for values in operands))
    return out.moved_op("STRIDED_SLICE", tensors, made, begin_mask=others, end_mask=others)
