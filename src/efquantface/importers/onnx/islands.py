"""ONNX operators that move values between axes, and those of transformer-like backbones.

Exporters may put another axis in front of the batch (attention's query, key and value stacked, a
``Transpose`` to (3, N, ...)). A graph keeps the batch in front, so such a value is remembered with
the place its batch has in the file, and only operators that pick a part of it may read it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

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
from efquantface.graph.ops import Flatten, Multiply, linear_from
from efquantface.importers.onnx.context import Handler, NotCanonical, Operands
from efquantface.importers.onnx.patterns import GELU, L2_NORM, LAYER_NORM

_ISLANDS = (MatMul, Softmax, Concat, LayerNorm, Gelu, L2Normalize, Scale, Shift)


def stays_in_float(op: Operands, source: str) -> bool:
    """Whether a constant factor or offset of ``source`` is a Scale or Shift, not an Affine."""
    rank = op.context.examples[source].dim()
    module = op.context.builder.module(source)
    return rank not in (2, 4) or isinstance(module, _ISLANDS)


def constant_operand(op: Operands, kind: str, index: int, source: str) -> str:
    """Add, Sub, Mul or Div of an activation and a constant of any shape that spreads over it."""
    value = op.tensor(index)
    shape = op.context.examples[source].shape
    while value.dim() > 1 and value.shape[0] == 1:  # the batch and missing axes need no entry
        value = value[0]
    try:
        spread = np.broadcast_shapes(tuple(value.shape), tuple(shape[1:]))
    except ValueError:
        raise NotCanonical(f"a constant of shape {tuple(value.shape)} for {tuple(shape)}") from None
    if tuple(spread) != tuple(shape[1:]):
        raise NotCanonical(f"a constant of shape {tuple(value.shape)} spreads {tuple(shape)}")
    if kind in ("Sub", "Div") and index == 0:
        raise NotCanonical(f"{kind} of a constant and an activation")
    if kind in ("Add", "Sub"):
        shift = Shift(value.shape)
        with torch.no_grad():
            shift.bias.copy_(value if kind == "Add" else -value)
        return op.add(shift, source)
    scale = Scale(value.shape)
    with torch.no_grad():
        scale.weight.copy_(value if kind == "Mul" else 1 / value)
    return op.add(scale, source)


def two_activations(op: Operands, kind: str) -> str:
    """A product of two activations, one of which may be spread over height and width."""
    if kind != "Mul":
        raise NotCanonical("two activations")
    first, second = op.activation(0), op.activation(1)
    a, b = op.shape(0), op.shape(1)
    spread = tuple(max(sizes) for sizes in zip(a, b, strict=False))
    if len(a) != len(b) or spread not in (a, b):
        raise NotCanonical(f"shapes {a} and {b}")
    if a != spread:
        first, second = second, first
    return op.add(Multiply(), first, second)


def _matmul(op: Operands) -> str:
    """A product with a constant matrix is a linear layer over the last axis."""
    if not op.is_constant(1):
        return op.add(MatMul(), op.activation(0), op.activation(1))
    weight = op.tensor(1)
    if weight.dim() != 2:
        raise NotCanonical(f"a product with a constant of shape {tuple(weight.shape)}")
    return op.add(linear_from(weight.T, None), op.activation())


def _transpose(op: Operands) -> str:
    order = list(op.attrs.get("perm", range(len(op.shape()))[::-1]))
    place = order.index(0)
    if place:
        op.context.moved[op.node.output[0]] = place
        order = [0, *(axis for axis in order if axis)]
    if order == sorted(order):
        return op.activation()
    return op.add(Transpose(order), op.activation())


def _own_axis(op: Operands, axis: int) -> tuple[int, int]:
    """An axis as the file counts it, and as the graph does, which has the batch in front."""
    rank = len(op.context.examples[op.any_activation()].shape)
    place = op.context.moved.get(op.node.input[0], 0)
    axis %= rank
    if axis == place:
        raise NotCanonical("works across the batch")
    return axis, axis + 1 if axis < place else axis


def _split(op: Operands) -> list[str]:
    source = op.any_activation()
    place = op.context.moved.get(op.node.input[0], 0)
    _, axis = _own_axis(op, int(op.attrs.get("axis", 0)))
    length = op.context.examples[source].shape[axis]
    count = len(op.node.output)
    sizes = op.attrs.get("split") or (op.constant(1).tolist() if op.has(1) else None)
    if sizes is None:
        each = -(-length // count)
        sizes = [min(each, length - each * i) for i in range(count)]
    stops = np.cumsum(sizes).tolist()
    for name in op.node.output:
        if place:
            op.context.moved[name] = place
    return [
        op.add(Slice(axis, stop - size, stop), source, suffix=f"_{index}")
        for index, (size, stop) in enumerate(zip(sizes, stops, strict=True))
    ]


def _gather(op: Operands) -> str:
    """One entry of an axis, which goes away."""
    index = op.constant(1)
    if index.ndim:
        raise NotCanonical("a gather of several entries")
    place = op.context.moved.get(op.node.input[0], 0)
    outer, axis = _own_axis(op, int(op.attrs.get("axis", 0)))
    source = op.any_activation()
    length = op.context.examples[source].shape[axis]
    at = int(index) % length
    picked = op.add(Slice(axis, at, at + 1), source, suffix="_pick")
    return _without(op, picked, [axis], place - (outer < place))


def _squeeze(op: Operands) -> str:
    source = op.any_activation()
    shape = op.context.examples[source].shape
    place = op.context.moved.get(op.node.input[0], 0)
    axes = op.attrs.get("axes")
    if axes is None and op.has(1):
        axes = op.constant(1).reshape(-1).tolist()
    if axes is None:
        raise NotCanonical("a squeeze without axes")
    pairs = [_own_axis(op, int(axis)) for axis in axes]
    if any(shape[axis] != 1 for _, axis in pairs):
        raise NotCanonical(f"a squeeze of {tuple(shape)}")
    if not place and len(shape) == 4 and sorted(axis for _, axis in pairs) == [2, 3]:
        return op.add(Flatten(), source)
    place -= sum(outer < place for outer, _ in pairs)
    return _without(op, source, [axis for _, axis in pairs], place)


def _without(op: Operands, source: str, axes: list[int], place: int) -> str:
    """``source`` without axes of length 1."""
    shape = op.context.examples[source].shape
    if place:
        op.context.moved[op.node.output[0]] = place
    return op.add(Reshape([s for i, s in enumerate(shape) if i and i not in axes]), source)


def _unsqueeze(op: Operands) -> str:
    shape = list(op.shape())
    axes = op.attrs.get("axes") or op.constant(1).reshape(-1).tolist()
    rank = len(shape) + len(axes)
    for axis in sorted(a % rank for a in axes):
        if axis == 0:
            raise NotCanonical("an axis in front of the batch")
        shape.insert(axis, 1)
    return op.add(Reshape(shape[1:]), op.activation())


def _slice(op: Operands) -> str:
    shape = op.shape()
    if op.opset < 10:
        starts, stops = list(op.attrs["starts"]), list(op.attrs["ends"])
        axes = list(op.attrs.get("axes", range(len(starts))))
        steps = [1] * len(starts)
    else:
        starts, stops = op.constant(1).tolist(), op.constant(2).tolist()
        axes = op.constant(3, np.arange(len(starts))).tolist()
        steps = op.constant(4, np.ones(len(starts), np.int64)).tolist()
    if any(step != 1 for step in steps):
        raise NotCanonical(f"steps {steps}")
    source = op.activation()
    for start, stop, axis in zip(starts, stops, axes, strict=True):
        axis %= len(shape)
        first, last, _ = slice(start, stop).indices(shape[axis])
        if (first, last) == (0, shape[axis]):
            continue
        if axis == 0:
            raise NotCanonical("a part of the batch")
        source = op.add(Slice(axis, first, last), source, suffix=f"_{axis}")
    return source


def _concat(op: Operands) -> str:
    axis = int(op.attrs["axis"]) % len(op.shape())
    if axis == 0:
        raise NotCanonical("along the batch")
    return op.add(Concat(axis), *(op.activation(i) for i in range(len(op.node.input))))


def _layer_norm(op: Operands) -> str:
    shape = op.shape()
    if op.attrs.get("axis", -1) not in (-1, len(shape) - 1):
        raise NotCanonical(f"axis {op.attrs['axis']}")
    norm = LayerNorm(shape[-1], float(op.attrs.get("epsilon", 1e-5)))
    with torch.no_grad():
        if op.has(1):
            norm.weight.copy_(op.tensor(1))
        if op.has(2):
            norm.bias.copy_(op.tensor(2))
    return op.add(norm, op.activation())


def _gelu(op: Operands) -> str:
    if op.attrs.get("approximate", b"none") != b"none":
        raise NotCanonical("an approximated GELU")
    return op.add(Gelu(), op.activation())


def _softmax(op: Operands) -> str:
    default = -1 if op.opset >= 13 else 1
    if op.attrs.get("axis", default) not in (-1, len(op.shape()) - 1):
        raise NotCanonical(f"axis {op.attrs.get('axis', default)}")
    return op.add(Softmax(), op.activation())


def _l2_normalize(op: Operands) -> str:
    return op.add(L2Normalize(float(op.attrs.get("eps", 0.0))), op.activation())


def _lp_normalization(op: Operands) -> str:
    if op.attrs.get("axis", -1) not in (-1, len(op.shape()) - 1) or op.attrs.get("p", 2) != 2:
        raise NotCanonical("not the L2 norm of the last axis")
    return op.add(L2Normalize(1e-12), op.activation())


def _expand(op: Operands) -> str:
    target = op.constant(1).reshape(-1).tolist()
    if tuple(np.broadcast_shapes(tuple(target), op.shape())) != op.shape():
        raise NotCanonical(f"{op.shape()} spread to {target}")
    return op.activation()


def _sigmoid(op: Operands) -> str:
    return op.add(nn.Sigmoid(), op.activation())


ISLAND_HANDLERS: dict[str, Handler] = {
    "MatMul": _matmul,
    "Transpose": _transpose,
    "Split": _split,
    "Gather": _gather,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Concat": _concat,
    "LayerNormalization": _layer_norm,
    LAYER_NORM: _layer_norm,
    "Gelu": _gelu,
    GELU: _gelu,
    "Softmax": _softmax,
    L2_NORM: _l2_normalize,
    "LpNormalization": _lp_normalization,
    "Expand": _expand,
    "Sigmoid": _sigmoid,
}
