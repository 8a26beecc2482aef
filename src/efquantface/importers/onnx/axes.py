"""ONNX operators that move values between axes.

Exporters may put another axis in front of the batch (attention's query, key and value stacked, a
``Transpose`` to (3, N, ...)). A graph keeps the batch in front, so such a value is remembered with
the place its batch has in the file, and only operators that pick a part of it may read it.
"""

from __future__ import annotations

import numpy as np
import torch

from efquantface.graph import ops
from efquantface.importers.onnx.context import Handler, NotCanonical, Operands


def _transpose(op: Operands) -> str:
    source = op.any_activation()
    rank = len(op.size(source))
    order = list(op.attrs.get("perm", range(rank)[::-1]))
    before = op.context.moved.get(op.node.input[0], 0)
    place = order.index(before)
    if place:
        op.context.moved[op.node.output[0]] = place
    # the graph's number of an axis, which has the batch in front
    own = [0 if axis == before else axis + 1 if axis < before else axis for axis in order]
    order = [0, *(axis for axis in own if axis)]
    if order == sorted(order):
        return source
    return op.add(ops.Transpose(order), source)


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
    """Entries of an axis; of a single one the axis goes away."""
    index = op.constant(1)
    place = op.context.moved.get(op.node.input[0], 0)
    outer, axis = _own_axis(op, int(op.attrs.get("axis", 0)))
    source = op.any_activation()
    length = op.size(source)[axis]
    if index.ndim > 1:
        raise NotCanonical(f"a gather of indices of shape {index.shape}")
    if index.ndim:
        if place:
            op.context.moved[op.node.output[0]] = place
        return take(op, source, axis, [int(i) % length for i in index])
    at = int(index) % length
    picked = op.add(ops.Slice(axis, at, at + 1), source, suffix="_pick")
    return _without(op, picked, [axis], place - (outer < place))


def take(op: Operands, source: str, axis: int, indices: list[int]) -> str:
    """Entries of an axis; nothing where they are all of it, a slice where they are neighbours."""
    if indices == list(range(op.size(source)[axis])):
        return source
    if not indices:
        raise NotCanonical("an empty part")
    start, stop = indices[0], indices[0] + len(indices)
    whole = indices == list(range(start, stop))
    module = ops.Slice(axis, start, stop) if whole else ops.Pick(axis, indices)
    return op.add(module, source, suffix=f"_{axis}")


def _squeeze(op: Operands) -> str:
    source = op.any_activation()
    shape = op.context.examples[source].shape
    place = op.context.moved.get(op.node.input[0], 0)
    axes = op.axes()
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
    source, place = op.any_activation(), op.context.moved.get(op.node.input[0], 0)
    axes = op.axes() or []
    rank = len(op.size(source)) + len(axes)
    shape: list[int] = list(op.size(source))[1:]
    shape.insert(place, 0)  # the batch, as the file has it
    for axis in sorted(a % rank for a in axes):
        shape.insert(axis, 1)
    place = shape.index(0)
    if place:
        op.context.moved[op.node.output[0]] = place
    return op.add(ops.Reshape([s for s in shape if s]), source)


def _slice(op: Operands) -> str:
    if op.opset < 10:
        starts, stops = list(op.attrs["starts"]), list(op.attrs["ends"])
        axes = list(op.attrs.get("axes", range(len(starts))))
        steps = [1] * len(starts)
    else:
        starts, stops = (op.constant(i).reshape(-1).tolist() for i in (1, 2))
        axes = op.constant(3, np.arange(len(starts))).reshape(-1).tolist()
        steps = op.constant(4, np.ones(len(starts), np.int64)).reshape(-1).tolist()
    source, place = op.any_activation(), op.context.moved.get(op.node.input[0], 0)
    rank = len(op.size(source))
    if place:
        op.context.moved[op.node.output[0]] = place
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        if axis % rank == place and step == 1 and start in (0, -1 << 63) and stop >= 1 << 31:
            continue  # all of the batch, however large it is
        _, own = _own_axis(op, axis)
        source = take(op, source, own, list(range(op.size(source)[own]))[start:stop:step])
    return source


def _concat(op: Operands) -> str:
    """Tensors one behind the other; constants among them by zeros and a shift."""
    parts = [i for i in range(len(op.node.input)) if op.node.input[i]]
    active = [i for i in parts if not op.is_constant(i)]
    rank = len(op.shape(active[0]))
    axis = int(op.attrs["axis"]) % rank
    if axis == 0:
        raise NotCanonical("along the batch")
    if len(active) == len(parts):
        return op.add(ops.Concat(axis), *(op.activation(i) for i in parts))
    return _with_constants(op, parts, active, axis)


def _with_constants(op: Operands, parts: list[int], active: list[int], axis: int) -> str:
    """Zeros in the place of constants (class tokens), and a shift that adds them."""
    shape, rank = op.shape(active[0]), len(op.shape(active[0]))
    constants = {i: op.tensor(i) for i in parts if i not in active}
    for value in constants.values():
        if value.dim() != rank or value.shape[0] != 1:
            raise NotCanonical(f"a constant of shape {tuple(value.shape)} beside {shape}")
    joined: list[str] = []
    for place, index in enumerate(active):
        first = parts.index(index)
        last = parts.index(active[place + 1]) if place + 1 < len(active) else len(parts)
        before = parts[:first] if not place else []
        joined.append(
            _between(
                op,
                op.activation(index),
                axis,
                [constants[i] for i in before],
                [constants[i] for i in parts[first + 1 : last]],
            )
        )
    whole = joined[0] if len(joined) == 1 else op.add(ops.Concat(axis), *joined)
    rows = [constants[i] if i in constants else torch.zeros(1, *op.shape(i)[1:]) for i in parts]
    shift = ops.Shift(op.size(whole)[1:])
    with torch.no_grad():
        shift.bias.copy_(torch.cat(rows, dim=axis)[0])
    return op.add(shift, whole, suffix="_constants")


def _between(
    op: Operands, source: str, axis: int, before: list[torch.Tensor], after: list[torch.Tensor]
) -> str:
    """A value with as many zeros around it along an axis as constants are long."""
    first, last = (sum(int(v.shape[axis]) for v in values) for values in (before, after))
    if not first and not last:
        return source
    place = axis - len(op.size(source))
    if place == -1:
        pad = ops.ZeroPad(0, left=first, right=last)
    elif place == -2:
        pad = ops.ZeroPad(0, top=first, bottom=last)
    elif place == -3 and not first:
        pad = ops.ZeroPad(last)
    else:
        raise NotCanonical("a constant in front of channels")
    return op.add(pad, source, suffix="_zeros")


def _expand(op: Operands) -> str:
    """Axes of length 1 spread over more."""
    source, shape = op.activation(), op.shape()
    target = op.constant(1).reshape(-1).tolist()
    try:
        wanted = np.broadcast_shapes(tuple(target), shape)
    except ValueError:
        raise NotCanonical(f"{shape} spread to {target}") from None
    if len(wanted) != len(shape):
        raise NotCanonical(f"{shape} spread to {target}")
    return _repeated(op, source, [1, *(w // s for w, s in zip(wanted[1:], shape[1:], strict=True))])


def _tile(op: Operands) -> str:
    repeats = op.constant(1).reshape(-1).tolist()
    if repeats[0] != 1:
        raise NotCanonical("a repeated batch")
    return _repeated(op, op.activation(), repeats)


def _repeated(op: Operands, source: str, repeats: list[int]) -> str:
    for axis, times in enumerate(repeats):
        if times != 1:
            source = take(op, source, axis, list(range(op.size(source)[axis])) * times)
    return source


AXIS_HANDLERS: dict[str, Handler] = {
    "Transpose": _transpose,
    "Split": _split,
    "Gather": _gather,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Concat": _concat,
    "Expand": _expand,
    "Tile": _tile,
}
