"""Views of the image: what a file does to crops in front of its first layer, node by node.

A view has rows and columns of the image (a part, a mirror image), mixed channels (another order, grey),
and a factor and an offset per channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from efquantface.importers.onnx.context import Context, NotCanonical, Operands

Float64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class View:
    """A view of the image at a node of the graph.

    Attributes:
        base: the node.
        mix: (C,B) shares of the node's B channels in each of the view's C channels.
        rows, columns: indices of the node's rows and columns, in the view's order.
        factor, offset: (C,) of the view's channels.
        flat: the view has one channel and no axis of channels.
    """

    base: str
    mix: Float64
    rows: Index
    columns: Index
    factor: Float64
    offset: Float64
    flat: bool = False


def whole(context: Context, base: str) -> View:
    """The view that is a node's whole image."""
    _, channels, height, width = context.examples[base].shape
    return View(
        base,
        np.eye(channels),
        np.arange(height),
        np.arange(width),
        np.ones(channels),
        np.zeros(channels),
    )


def grey(context: Context, base: str, weights: tuple[float, ...]) -> View:
    """A view with one channel, mixed from a node's three by ``weights``."""
    mix = np.asarray(weights, np.float64).reshape(1, -1)
    view = whole(context, base)
    return replace(view, mix=mix / mix.sum(), factor=np.ones(1), offset=np.zeros(1))


def _slice(op: Operands, view: View) -> View:
    if op.opset < 10:
        starts, stops = op.attrs["starts"], op.attrs["ends"]
        axes, steps = op.attrs.get("axes", range(len(starts))), [1] * len(starts)
    else:
        starts, stops = op.constant(1).tolist(), op.constant(2).tolist()
        axes = op.constant(3, np.arange(len(starts))).tolist()
        steps = op.constant(4, np.ones(len(starts), np.int64)).tolist()
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        view = _picked(view, axis, _at(slice(start, stop, step)))
    return view


def _gather(op: Operands, view: View) -> View:
    index = op.constant(1)
    axis = int(op.attrs.get("axis", 0)) % 4
    if index.ndim == 0 and axis == 1:
        return replace(_picked(view, 1, _at(index.reshape(1))), flat=True)
    if index.ndim != 1:
        raise NotCanonical("a gather of a table of entries")
    return _picked(view, axis, _at(index))


def _at(which: slice | Index) -> Callable[[Any], Any]:
    """A function that picks entries of an array."""
    return lambda values: values[which]


def _picked(view: View, axis: int, pick: Callable[[Any], Any]) -> View:
    """The view with some entries of an axis."""
    axis %= 4
    if view.flat:
        raise NotCanonical("a part of a single channel")
    if axis == 1:
        order = pick(np.arange(len(view.mix)))
        return replace(
            view, mix=view.mix[order], factor=view.factor[order], offset=view.offset[order]
        )
    if axis == 2:
        return replace(view, rows=pick(view.rows))
    if axis == 3:
        return replace(view, columns=pick(view.columns))
    if len(pick(np.arange(1))) != 1:
        raise NotCanonical("a part of the batch")
    return view


def _split(op: Operands, view: View) -> list[View]:
    axis = int(op.attrs.get("axis", 0)) % 4
    length = {1: len(view.mix), 2: len(view.rows), 3: len(view.columns)}.get(axis, 0)
    sizes = op.attrs.get("split") or (op.constant(1).tolist() if op.has(1) else None)
    if sizes is None:
        sizes = [-(-length // len(op.node.output))] * len(op.node.output)
    stops = np.cumsum(sizes).tolist()
    return [
        _picked(view, axis, _at(slice(stop - size, stop)))
        for size, stop in zip(sizes, stops, strict=True)
    ]


def _unsqueeze(op: Operands, view: View) -> View:
    axes = op.attrs.get("axes") or op.constant(1).reshape(-1).tolist()
    if not view.flat or [a % 4 for a in axes] != [1]:
        raise NotCanonical("another axis")
    return replace(view, flat=False)


def concat(op: Operands, views: list[View]) -> View:
    """Views of one image, concatenated along the channels."""
    first = views[0]
    if int(op.attrs["axis"]) % 4 != 1 or not _of_one_image(views):
        raise NotCanonical("parts of different images")
    return replace(
        first,
        mix=np.concatenate([v.mix for v in views]),
        factor=np.concatenate([v.factor for v in views]),
        offset=np.concatenate([v.offset for v in views]),
    )


def _of_one_image(views: list[View]) -> bool:
    """Whether views have the same pixels; their channels may differ."""
    first = views[0]
    return all(
        v.base == first.base
        and not v.flat
        and np.array_equal(v.rows, first.rows)
        and np.array_equal(v.columns, first.columns)
        for v in views
    )


def _arithmetic(op: Operands, view: View) -> View:
    constant = next((i for i in (0, 1) if op.is_constant(i)), None)
    if constant is None or view.flat:
        raise NotCanonical("two images")
    value = op.constant(constant).astype(np.float64)
    channels = len(view.mix)
    full = value.reshape((1,) * (4 - value.ndim) + value.shape)
    if full.size not in (1, full.shape[1]) or full.shape[1] not in (1, channels):
        raise NotCanonical("a constant that is not one value per channel")
    c, kind = np.broadcast_to(full.reshape(-1), channels), op.node.op_type
    if kind == "Add":
        return replace(view, offset=view.offset + c)
    if kind == "Sub":
        sign = -1 if constant == 0 else 1
        return replace(view, factor=sign * view.factor, offset=sign * (view.offset - c))
    if kind == "Div" and constant == 0:
        raise NotCanonical("a constant divided by an image")
    c = 1 / c if kind == "Div" else c
    return replace(view, factor=view.factor * c, offset=view.offset * c)


def _batch_norm(op: Operands, view: View) -> View:
    scale, bias, mean, variance = (op.constant(i).astype(np.float64) for i in range(1, 5))
    factor = scale / np.sqrt(variance + float(op.attrs.get("epsilon", 1e-5)))
    offset = bias - mean * factor
    return replace(view, factor=view.factor * factor, offset=view.offset * factor + offset)


def _tile(op: Operands, view: View) -> View:
    """Channels repeated."""
    repeats = op.constant(1).reshape(-1).tolist()
    if view.flat or [*repeats[:1], *repeats[2:]] != [1, 1, 1]:
        raise NotCanonical("more than channels")
    return _picked(view, 1, _at(np.tile(np.arange(len(view.mix)), int(repeats[1]))))


def _expand(op: Operands, view: View) -> View:
    """One channel repeated."""
    own = (1, len(view.mix), len(view.rows), len(view.columns))
    spread = np.broadcast_shapes(own, tuple(op.constant(1).reshape(-1).tolist()))
    if view.flat or spread[2:] != own[2:] or spread[0] != 1 or len(spread) != 4:
        raise NotCanonical("more than channels")
    return view if own == spread else _picked(view, 1, _at(np.zeros(spread[1], np.int64)))


def _reduce(op: Operands, view: View) -> View:
    """The sum or mean of all channels (grey)."""
    axes = op.attrs.get("axes") or op.constant(1).reshape(-1).tolist()
    if view.flat or [int(a) % 4 for a in axes] != [1]:
        raise NotCanonical("more than channels")
    share = 1 / len(view.mix) if op.node.op_type == "ReduceMean" else 1.0
    mix = (view.factor[:, None] * view.mix).sum(axis=0, keepdims=True) * share
    mixed = _mixed(view, mix, view.offset.sum(keepdims=True) * share)
    return replace(mixed, flat=not op.attrs.get("keepdims", 1))


def together(op: Operands, first: View, second: View) -> View:
    """The sum or difference of two views of the same pixels."""
    if not _of_one_image([first, second]) or len(first.mix) != len(second.mix):
        raise NotCanonical("two images")
    sign = {"Add": 1, "Sub": -1}[op.node.op_type]
    mix = first.factor[:, None] * first.mix + sign * second.factor[:, None] * second.mix
    return _mixed(first, mix, first.offset + sign * second.offset)


def _mixed(view: View, mix: Float64, offset: Float64) -> View:
    """The view with another mix, scaled so that shares sum to one; the scale goes into the factor."""
    factor = mix.sum(axis=1)
    if (factor == 0).any():
        raise NotCanonical("differences of channels")
    return replace(view, mix=mix / factor[:, None], factor=factor, offset=offset)


ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Identity", "Cast", "Dropout", "BatchNormalization")
MOVES: dict[str, Callable[[Operands, View], View | list[View]]] = {
    "Slice": _slice,
    "Gather": _gather,
    "Split": _split,
    "Tile": _tile,
    "Expand": _expand,
    "ReduceSum": _reduce,
    "ReduceMean": _reduce,
}
ON_VIEWS: dict[str, Callable[[Operands, View], View | list[View]]] = {
    **MOVES,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    **dict.fromkeys(("Identity", "Cast", "Dropout"), lambda op, view: view),
    "BatchNormalization": _batch_norm,
    "Unsqueeze": _unsqueeze,
}


def is_range(index: Index) -> bool:
    """Whether indices are consecutive."""
    return bool((np.diff(index) == 1).all())
