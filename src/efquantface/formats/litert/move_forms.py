"""LiteRT forms of moves. Most only change what is remembered of a value's layout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from efquantface.formats.litert.layer_forms import zeros_around
from efquantface.formats.litert.value_forms import picked, sliced
from efquantface.formats.litert.values import Value
from efquantface.formats.litert.writer import Writer
from efquantface.graph import ops
from efquantface.graph.graph import module_of
from efquantface.quantize.layers import QuantLinear


def pad(out: Writer, name: str, m: ops.ZeroPad, inputs: list[Value]) -> Value:
    """Padding with zeros; of codes, with the zero point."""
    return zeros_around(out, inputs[0], (m.top, m.bottom, m.left, m.right), m.channels)


def flatten(out: Writer, name: str, m: ops.Flatten, inputs: list[Value]) -> Value:
    """A map as a vector. Linear layers read its entries in the order of memory."""
    x = inputs[0]
    node = next(n for n in out.graph.graph.nodes if n.target == name)
    readers = [module_of(out.graph, user) for user in node.users]
    if all(isinstance(r, QuantLinear | ops.Linear) for r in readers):
        return out.as_columns(x)
    return out.in_shape(x, out.shapes[name])


def reshape(out: Writer, name: str, m: ops.Reshape, inputs: list[Value]) -> Value:
    """A reshape, without moving memory where that is possible."""
    return out.in_shape(inputs[0], out.shapes[name])


def transpose(out: Writer, name: str, m: ops.Transpose, inputs: list[Value]) -> Value:
    """A transposition, which is remembered: memory moves when an operator reads the value."""
    x = inputs[0]
    order = tuple(m.order.index(axis) for axis in x.order)
    return replace(x, shape=out.shapes[name], order=order)


def slice_(out: Writer, name: str, m: ops.Slice, inputs: list[Value]) -> Value:
    """A part of an axis."""
    axis = m.axis % len(inputs[0].shape)
    return sliced(out, inputs[0], axis, m.start, m.stop)


def pick(out: Writer, name: str, m: ops.Pick, inputs: list[Value]) -> Value:
    """Entries of an axis in any order."""
    axis = m.axis % len(inputs[0].shape)
    return picked(out, inputs[0], axis, np.asarray(m.indices))
