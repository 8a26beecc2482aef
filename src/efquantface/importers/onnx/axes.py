"""ONNX operators that move values between axes, wherever the batch is (:mod:`places`)."""

from __future__ import annotations

from math import prod

import numpy as np
import torch

from efquantface.graph import ops
from efquantface.importers.onnx.arithmetic import for_one
from efquantface.importers.onnx.context import Handler, NotCanonical, Operands
from efquantface.importers.onnx.places import FRONT, LEFT_OUT, Place

_LEAST, _MOST = -(1 << 63), 1 << 31  # "from the start", and at least this "to the end"


def _place(op: Operands) -> Place:
    return op.context.place(op.node.input[0])


def _rank(op: Operands) -> int:
    """The number of axes of the file's value."""
    return _place(op).rank(len(op.size(op.any_activation())))


def _leaves_out(op: Operands, axis: int) -> bool:
    """Whether an axis is only the batch of a file that takes one crop."""
    place = _place(op)
    return op.context.single and axis % _rank(op) == place.axis and place.beside == 1


def _give(op: Operands, place: Place, result: str) -> str:
    op.context.put(op.node.output[0], place)
    return result


def _transpose(op: Operands) -> str:
    source, place = op.any_activation(), _place(op)
    order = list(op.attrs.get("perm", range(_rank(op))[::-1]))
    own = [0, *(axis for file in order if (axis := place.own(file)) is not None)]
    moved = place.at(order.index(place.axis)) if place.axis >= 0 else place
    return _give(op, moved, source if own == sorted(own) else op.add(ops.Transpose(own), source))


def _own_axis(op: Operands, axis: int) -> tuple[int, int]:
    """The number of an axis in the file, and in the graph, which has the batch in front."""
    place = _place(op)
    axis %= _rank(op)
    own = place.own(axis)
    if own is None or axis == place.axis:
        raise NotCanonical("works across the batch")
    return axis, own


def _split(op: Operands) -> list[str]:
    source, place = op.any_activation(), _place(op)
    _, axis = _own_axis(op, int(op.attrs.get("axis", 0)))
    length = op.context.examples[source].shape[axis]
    count = len(op.node.output)
    sizes = op.attrs.get("split") or (op.constant(1).tolist() if op.has(1) else None)
    if sizes is None:
        each = -(-length // count)
        sizes = [min(each, length - each * i) for i in range(count)]
    stops = np.cumsum(sizes).tolist()
    for name in op.node.output:
        op.context.put(name, place)
    return [
        op.add(ops.Slice(axis, stop - size, stop), source, suffix=f"_{index}")
        for index, (size, stop) in enumerate(zip(sizes, stops, strict=True))
    ]


def _gather(op: Operands) -> str:
    """Entries of an axis. A single index removes the axis."""
    index, place, source = op.constant(1), _place(op), op.any_activation()
    if _leaves_out(op, int(op.attrs.get("axis", 0))) and not index.any():
        return _give(op, LEFT_OUT if index.ndim == 0 else place, source)
    outer, axis = _own_axis(op, int(op.attrs.get("axis", 0)))
    length = op.size(source)[axis]
    if index.ndim > 1:  # a table of indices: one axis becomes several
        if place != FRONT:
            raise NotCanonical(f"a gather of indices of shape {index.shape}")
        taken = take(op, source, axis, [int(i) % length for i in index.reshape(-1)])
        shape = op.size(source)
        return op.add(ops.Reshape([*shape[1:axis], *index.shape, *shape[axis + 1 :]]), taken)
    if index.ndim:
        return _give(op, place, take(op, source, axis, [int(i) % length for i in index]))
    at = int(index) % length
    picked = op.add(ops.Slice(axis, at, at + 1), source, suffix="_pick")
    return _without(op, picked, [axis], place.without([outer]))


def take(op: Operands, source: str, axis: int, indices: list[int]) -> str:
    """Entries of an axis: nothing for the whole axis, a slice for neighbours, a pick for others."""
    if indices == list(range(op.size(source)[axis])):
        return source
    if not indices:
        raise NotCanonical("an empty part")
    start, stop = indices[0], indices[0] + len(indices)
    whole = indices == list(range(start, stop))
    module = ops.Slice(axis, start, stop) if whole else ops.Pick(axis, indices)
    return op.add(module, source, suffix=f"_{axis}")


def zeros_along(op: Operands, source: str, axis: int, first: int, last: int) -> str:
    """``first`` zeros in front of an axis and ``last`` behind it."""
    shape = op.size(source)
    if not first and not last:
        return source
    if axis == len(shape) - 1:
        return op.add(ops.ZeroPad(0, left=first, right=last), source, suffix="_zeros")
    rows = [prod(shape[1:axis]), shape[axis], prod(shape[axis + 1 :])]
    padded = [*shape[1:axis], first + shape[axis] + last, *shape[axis + 1 :]]
    pad = ops.ZeroPad(0, top=first, bottom=last)
    if axis == len(shape) - 2:
        return op.add(pad, source, suffix="_zeros")
    found = op.add(pad, op.add(ops.Reshape(rows), source, suffix="_rows"), suffix="_zeros")
    return op.add(ops.Reshape(padded), found)


def _squeeze(op: Operands) -> str:
    source, place = op.any_activation(), _place(op)
    shape, axes = op.size(source), op.axes()
    if axes is None:
        axes = [a for a, n in enumerate(place.shape(shape)) if n == 1 and a != place.axis]
        axes += [place.axis] if _leaves_out(op, place.axis) and place.axis >= 0 else []
    left_out = [axis % _rank(op) for axis in axes if _leaves_out(op, axis)]
    pairs = [_own_axis(op, axis) for axis in axes if not _leaves_out(op, axis)]
    if any(shape[axis] != 1 for _, axis in pairs):
        raise NotCanonical(f"a squeeze of {tuple(shape)}")
    kept = place.without([*left_out, *(outer for outer, _ in pairs)])
    if not place.axis and len(shape) == 4 and sorted(axis for _, axis in pairs) == [2, 3]:
        return _give(op, kept, op.add(ops.Flatten(), source))
    return _without(op, source, [axis for _, axis in pairs], kept)


def _without(op: Operands, source: str, axes: list[int], place: Place) -> str:
    """``source`` without axes of length 1."""
    shape = [s for i, s in enumerate(op.size(source)) if i and i not in axes]
    return _give(op, place, op.add(ops.Reshape(shape), source))


def _unsqueeze(op: Operands) -> str:
    source, place = op.any_activation(), _place(op)
    shape: list[int] = list(place.shape(op.size(source)))
    batch = object()
    marked: list[object] = [batch if axis == place.axis else n for axis, n in enumerate(shape)]
    given = op.axes() or []
    axes = sorted(a % (len(shape) + len(given)) for a in given)
    for axis in axes:
        marked.insert(axis, 1)
    if place.axis < 0 and axes[:1] == [0]:
        marked[0] = batch
    moved = place.at(marked.index(batch)) if batch in marked else place
    sizes = [size for size in marked if isinstance(size, int)]
    if place.beside > 1:
        sizes.insert(moved.axis, place.beside)
    return _give(op, moved, op.add(ops.Reshape(sizes), source))


def _slice(op: Operands) -> str:
    if op.opset < 10:
        starts, stops = list(op.attrs["starts"]), list(op.attrs["ends"])
        axes = list(op.attrs.get("axes", range(len(starts))))
        steps = [1] * len(starts)
    else:
        starts, stops = (op.constant(i).reshape(-1).tolist() for i in (1, 2))
        axes = op.constant(3, np.arange(len(starts))).reshape(-1).tolist()
        steps = op.constant(4, np.ones(len(starts), np.int64)).reshape(-1).tolist()
    source, place = op.any_activation(), _place(op)
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        first = step == 1 and start in (0, _LEAST)
        if axis % _rank(op) == place.axis and first and (stop >= _MOST or _leaves_out(op, axis)):
            continue  # the whole batch of any size
        _, own = _own_axis(op, axis)
        source = take(op, source, own, list(range(op.size(source)[own]))[start:stop:step])
    return _give(op, place, source)


def _reshape(op: Operands) -> str:
    """A reshape to (N, ...), also where the file has a fixed batch."""
    given = op.constant(1).tolist() if op.has(1) else list(op.attrs.get("shape", []))
    source, place = op.any_activation(), _place(op)
    shape, before = op.size(source), place.shape(op.size(source))
    features = prod(shape[1:])
    if op.context.single and len(given) == 1:
        return _give(op, LEFT_OUT, op.add(ops.Reshape([features]), source))
    sizes = [before[i] if size == 0 else int(size) for i, size in enumerate(given)]
    if op.node.input[0] not in op.context.moved:
        if len(given) == 2 and given[1] in (-1, features):
            return flat(op)
        rest = sizes[1:]
        if rest.count(-1) == 1 and sizes[0] in (1, shape[0]):
            rest[rest.index(-1)] = features // max(-prod(rest), 1)
        if -1 not in rest and prod(rest) == features:
            return source if rest == list(shape[1:]) else op.add(ops.Reshape(rest), source)
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = features // max(-prod(sizes), 1)
    found = place.reshaped(before, sizes, given) if prod(sizes) == features else None
    if found is None:
        raise NotCanonical(f"a reshape of {before} to {given}")
    own = [n for axis, n in enumerate(sizes) if axis != found.axis or found.beside > 1]
    return _give(op, found, source if own == list(shape[1:]) else op.add(ops.Reshape(own), source))


def flat(op: Operands) -> str:
    """From (N, ...) to (N, D)."""
    return op.activation() if len(op.shape()) == 2 else op.add(ops.Flatten(), op.activation())


def _concat(op: Operands) -> str:
    """A concatenation. Constants in it become zeros and a shift."""
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
    """Zeros in place of constants (class tokens), and a shift that adds the constants."""
    shape, rank = op.shape(active[0]), len(op.shape(active[0]))
    constants = {i: for_one(op.tensor(i), rank) for i in parts if i not in active}
    for value in constants.values():
        if value.dim() != rank or value.shape[0] != 1:
            raise NotCanonical(f"a constant of shape {tuple(value.shape)} beside {shape}")
    lengths = {i: int(value.shape[axis]) for i, value in constants.items()}
    joined: list[str] = []
    for place, index in enumerate(active):
        first = parts.index(index)
        following = parts.index(active[place + 1]) if place + 1 < len(active) else len(parts)
        before = sum(lengths[i] for i in parts[:first]) if not place else 0
        after = sum(lengths[i] for i in parts[first + 1 : following])
        joined.append(zeros_along(op, op.activation(index), axis, before, after))
    whole = joined[0] if len(joined) == 1 else op.add(ops.Concat(axis), *joined)
    rows = [constants[i] if i in constants else torch.zeros(1, *op.shape(i)[1:]) for i in parts]
    shift = ops.Shift(op.size(whole)[1:])
    with torch.no_grad():
        shift.bias.copy_(torch.cat(rows, dim=axis)[0])
    return op.add(shift, whole, suffix="_constants")


def _expand(op: Operands) -> str:
    """Axes of length 1 repeated."""
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
    "Reshape": _reshape,
    "Slice": _slice,
    "Concat": _concat,
    "Expand": _expand,
    "Tile": _tile,
}
