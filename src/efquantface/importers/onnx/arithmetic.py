"""Sums, differences, products, quotients, maxima and minima of activations and constants."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from efquantface.graph import ops
from efquantface.importers.onnx.context import Handler, NotCanonical, Operands


def scaled(op: Operands, source: str, factor: float, offset: float = 0.0) -> str:
    """``source * factor + offset``: an affine, or in float where ``source`` stays in float."""
    if (factor, offset) == (1.0, 0.0):
        return source
    if stays_in_float(op, source):
        if factor != 1:
            source = with_scale(op, source, torch.tensor([factor]))
        return source if not offset else with_shift(op, source, torch.tensor([offset]))
    return affine(op, source, torch.tensor([factor]), torch.tensor([offset]))


def stays_in_float(op: Operands, source: str) -> bool:
    """Whether a constant factor or offset of ``source`` becomes a Scale or Shift, not an Affine."""
    return len(op.size(source)) not in (2, 4) or source in op.context.floats


@torch.no_grad()
def affine(op: Operands, source: str, weight: Tensor, bias: Tensor) -> str:
    """Per-channel scale and shift. Scalars are broadcast over the channels."""
    channels = op.size(source)[1]
    module = ops.Affine(channels)
    try:
        module.weight.copy_(weight.expand(channels))
        module.bias.copy_(bias.expand(channels))
    except RuntimeError:
        raise NotCanonical(f"a constant of {weight.numel()} values, {channels} channels") from None
    return op.add(module, source)


@torch.no_grad()
def with_scale(op: Operands, source: str, value: Tensor) -> str:
    """A product with a constant, in float."""
    module = ops.Scale(value.shape)
    module.weight.copy_(value)
    return op.add(module, source)


@torch.no_grad()
def with_shift(op: Operands, source: str, value: Tensor) -> str:
    """A sum with a constant, in float."""
    module = ops.Shift(value.shape)
    module.bias.copy_(value)
    return op.add(module, source)


def function(op: Operands, name: str, source: str, value: float = 0.0) -> str:
    """A function of each value."""
    return op.add(ops.Function(name, value), source, suffix=f"_{name}")


def for_one(value: Tensor, rank: int) -> Tensor:
    """A constant for one crop, where a fixed batch has repeated it for several crops."""
    same = value.dim() == rank and len(value) > 1 and bool((value == value[:1]).all())
    return value[:1] if same else value


def spread(op: Operands, value: Tensor, source: str) -> Tensor:
    """A constant without needless axes of length 1. Broadcasting it must not enlarge the value."""
    shape = op.size(source)
    value = for_one(value, len(shape))
    while value.dim() > 1 and value.shape[0] == 1:  # axes of length 1 in front are implied
        value = value[0]
    try:
        found = np.broadcast_shapes(tuple(value.shape), shape[1:])
    except ValueError:
        raise NotCanonical(f"a constant of shape {tuple(value.shape)} for {shape}") from None
    if tuple(found) != shape[1:]:
        raise NotCanonical(f"a constant of shape {tuple(value.shape)} spreads {shape}")
    return value


def per_channel(op: Operands, index: int, rank: int) -> Tensor | None:
    """A constant that varies only along the channels, as a vector or one value; None for others."""
    value = op.tensor(index)
    if value.numel() == 1:
        return value.flatten()
    full = value.reshape((1,) * (rank - value.dim()) + tuple(value.shape))
    return full.flatten() if full.dim() == rank and full.numel() == full.shape[1] else None


def _with_constant(op: Operands, kind: str, index: int) -> str:
    """An operation of an activation and a constant, which is input ``index``."""
    source = op.activation(1 - index)
    if kind == "Div" and index == 0:
        source, kind = function(op, "pow", source, -1.0), "Mul"
    channels = per_channel(op, index, len(op.size(source)))
    if stays_in_float(op, source) or channels is None:
        value = spread(op, op.tensor(index), source)
        if kind in ("Mul", "Div"):
            return with_scale(op, source, value if kind == "Mul" else 1 / value)
        if kind == "Sub" and index == 0:
            source = with_scale(op, source, -torch.ones(1))
        return with_shift(op, source, -value if kind == "Sub" and index == 1 else value)
    one, zero = torch.ones(1), torch.zeros(1)
    if kind in ("Mul", "Div"):
        return affine(op, source, channels if kind == "Mul" else 1 / channels, zero)
    if kind == "Sub":
        return (
            affine(op, source, -one, channels) if index == 0 else affine(op, source, one, -channels)
        )
    return affine(op, source, one, channels)


def combined(op: Operands, kind: str, first: str, second: str) -> str:
    """An operation of two activations. One may be broadcast over axes of the other."""
    a, b = op.size(first), op.size(second)
    if len(a) != len(b):
        raise NotCanonical(f"shapes {a} and {b}")
    if kind == "Div":
        second, kind = function(op, "pow", second, -1.0), "Mul"
    if kind == "Sub":
        second, kind = scaled(op, second, -1.0), "Add"
    full = tuple(max(sizes) for sizes in zip(a, b, strict=True))
    if a != full and b == full:
        first, second = second, first
    return op.add(ops.Multiply() if kind == "Mul" else ops.Add(), first, second)


def _elementwise(kind: str) -> Handler:
    def handler(op: Operands) -> str:
        constant = next((i for i in (0, 1) if op.is_constant(i)), None)
        if constant is not None:
            return _with_constant(op, kind, constant)
        return combined(op, kind, op.activation(0), op.activation(1))

    return handler


def _parts(op: Operands) -> tuple[list[str], list[int]]:
    """Activations by name, and indices of constants among the inputs."""
    indices = range(len(op.node.input))
    constants = [i for i in indices if op.is_constant(i)]
    return [op.activation(i) for i in indices if i not in constants], constants


def _sum(op: Operands) -> str:
    activations, constants = _parts(op)
    total = reduce(lambda a, b: combined(op, "Add", a, b), activations)
    for index in constants:
        total = with_shift(op, total, spread(op, op.tensor(index), total))
    return scaled(op, total, 1 / len(op.node.input)) if op.node.op_type == "Mean" else total


def _extreme(is_max: bool) -> Handler:
    def handler(op: Operands) -> str:
        activations, constants = _parts(op)
        found = _halves(op, activations) if is_max and len(activations) > 1 else None
        if found is None:
            found = reduce(lambda a, b: _larger(op, a, b, is_max), activations)
        for index in constants:
            found = _limited(op, found, op.tensor(index), is_max)
        return found

    return handler


def _limited(op: Operands, source: str, value: Tensor, is_max: bool) -> str:
    """A constant limit of any shape."""
    if value.numel() == 1:
        limit = float(value)
        return op.add(ops.Clamp(limit, None) if is_max else ops.Clamp(None, limit), source)
    value = spread(op, value, source)
    above = op.add(_positive(is_max), with_shift(op, source, -value))
    return with_shift(op, above, value)


def _larger(op: Operands, first: str, second: str, is_max: bool) -> str:
    """``a + max(b - a, 0)``, or ``a + min(b - a, 0)``."""
    above = op.add(_positive(is_max), combined(op, "Sub", second, first), suffix="_above")
    return combined(op, "Add", first, above)


def _positive(is_max: bool) -> ops.Clamp:
    return ops.Clamp(0.0, None) if is_max else ops.Clamp(None, 0.0)


def _halves(op: Operands, parts: list[str]) -> str | None:
    """The maximum of equal parts of one value's channels (MFM), as a pooling, which reads codes, too."""
    builder = op.context.builder
    slices = sorted(
        ((m, p) for p in parts if isinstance(m := builder.module(p), ops.Slice) and m.axis == 1),
        key=lambda found: found[0].start,
    )
    sources = {found for _, p in slices if (found := builder.source(p)) is not None}
    if len(slices) != len(parts) or len(sources) != 1:
        return None
    source = sources.pop()
    starts, shape = [m.start for m, _ in slices], op.size(parts[0])
    if starts != [starts[0] + shape[1] * i for i in range(len(parts))]:
        return None
    if len(parts) * shape[1] != op.size(source)[1]:
        stop = starts[0] + len(parts) * shape[1]
        source = op.add(ops.Slice(1, starts[0], stop), source, suffix="_both")
    rows = op.add(ops.Reshape([1, len(parts), int(np.prod(shape[1:]))]), source, suffix="_parts")
    largest = op.add(ops.MaxPool2d((len(parts), 1), (1, 1)), rows, suffix="_largest")
    return op.add(ops.Reshape(shape[1:]), largest)


def _unary(change: Callable[[Operands, str], str]) -> Handler:
    return lambda op: change(op, op.activation())


ARITHMETIC_HANDLERS: dict[str, Handler] = {
    "Add": _elementwise("Add"),
    "Sub": _elementwise("Sub"),
    "Mul": _elementwise("Mul"),
    "Div": _elementwise("Div"),
    "Sum": _sum,
    "Mean": _sum,
    "Max": _extreme(True),
    "Min": _extreme(False),
    "Neg": _unary(lambda op, x: scaled(op, x, -1.0)),
    "Abs": _unary(lambda op, x: function(op, "abs", x)),
    "Sign": _unary(lambda op, x: function(op, "sign", x)),
    "Exp": _unary(lambda op, x: function(op, "exp", x)),
    "Log": _unary(lambda op, x: function(op, "log", x)),
    "Sqrt": _unary(lambda op, x: function(op, "pow", x, 0.5)),
    "Reciprocal": _unary(lambda op, x: function(op, "pow", x, -1.0)),
}
