"""ONNX operators that move values between axes.

Exporters may put another axis in front of the batch (attention's query, key and value stacked, a
``Transpose`` to (3, N, ...)). A graph keeps the batch in front, so such a value is remembered with
the place its batch has in the file, and only operators that pick a part of it may read it.
"""

from __future__ import annotations

import numpy as np

from efquantface.graph import ops
from efquantface.importers.onnx.context import Handler, NotCanonical, Operands


def _transpose(op: Operands) -> str:
    order = list(op.attrs.get("perm", range(len(op.shape()))[::-1]))
    place = order.index(0)
    if place:
        op.context.moved[op.node.output[0]] = place
        order = [0, *(axis for axis in order if axis)]
    if order == sorted(order):
        return op.activation()
    return op.add(ops.Transpose(order), op.activation())


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
        op.add(ops.Slice(axis, stop - size, stop), source, suffix=f"_{index}")
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
    picked = op.add(ops.Slice(axis, at, at + 1), source, suffix="_pick")
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
        return op.add(ops.Flatten(), source)
    place -= sum(outer < place for outer, _ in pairs)
    return _without(op, source, [axis for _, axis in pairs], place)


def _without(op: Operands, source: str, axes: list[int], place: int) -> str:
    """``source`` without axes of length 1."""
    shape = op.context.examples[source].shape
    if place:
        op.context.moved[op.node.output[0]] = place
    return op.add(ops.Reshape([s for i, s in enumerate(shape) if i and i not in axes]), source)


def _unsqueeze(op: Operands) -> str:
    shape = list(op.shape())
    axes = op.attrs.get("axes") or op.constant(1).reshape(-1).tolist()
    rank = len(shape) + len(axes)
    for axis in sorted(a % rank for a in axes):
        if axis == 0:
            raise NotCanonical("an axis in front of the batch")
        shape.insert(axis, 1)
    return op.add(ops.Reshape(shape[1:]), op.activation())


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
        source = op.add(ops.Slice(axis, first, last), source, suffix=f"_{axis}")
    return source


def _concat(op: Operands) -> str:
    axis = int(op.attrs["axis"]) % len(op.shape())
    if axis == 0:
        raise NotCanonical("along the batch")
    return op.add(ops.Concat(axis), *(op.activation(i) for i in range(len(op.node.input))))


def _expand(op: Operands) -> str:
    target = op.constant(1).reshape(-1).tolist()
    if tuple(np.broadcast_shapes(tuple(target), op.shape())) != op.shape():
        raise NotCanonical(f"{op.shape()} spread to {target}")
    return op.activation()


AXIS_HANDLERS: dict[str, Handler] = {
    "Transpose": _transpose,
    "Split": _split,
    "Gather": _gather,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Concat": _concat,
    "Expand": _expand,
}
