"""What a file does to crops in front of its first layer, kept as views until a layer reads them.

Then a view is written with its factor first, which becomes part of the normalization. Moves follow,
which hand on codes.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch

from efquantface.graph import ops
from efquantface.importers.onnx.context import Context, NotCanonical, Operands
from efquantface.importers.onnx.views import (
    ARITHMETIC,
    MOVES,
    ON_VIEWS,
    Float64,
    View,
    concat,
    is_range,
    together,
    whole,
)


class Pixels:
    """The views among a file's values.

    Attributes:
        views: by the value's name in the file.
        images: values that are the whole image, up to a factor and an offset.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.views: dict[str, View] = {}
        self.images: set[str] = set()

    def read(self, op: Operands) -> bool:
        """Handle a node that gives views or moves the image; False for other nodes."""
        names = [name for name in op.node.input if name and name not in self.context.constants]
        found: View | list[View]
        try:
            if any(name in self.views for name in names):
                views = [self.views[n] if n in self.views else self._image(n) for n in names]
                if op.node.op_type == "Concat":
                    found = concat(op, views)
                elif len(views) == 2:
                    found = together(op, *views)
                elif len(views) == 1 and op.node.op_type in ON_VIEWS:
                    found = ON_VIEWS[op.node.op_type](op, views[0])
                else:
                    return False
            elif len(names) == 1 and names[0] in self.images and op.node.op_type in MOVES:
                found = MOVES[op.node.op_type](op, self._image(names[0]))
            else:
                return False
        except (NotCanonical, KeyError, IndexError, ValueError):
            return False
        results = found if isinstance(found, list) else [found]
        if any(not len(v.rows) or not len(v.columns) or not len(v.mix) for v in results):
            return False
        self.views.update(zip(op.node.output, results, strict=True))
        return True

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a view; None for other values."""
        view = self.views.get(name)
        if view is None or view.flat:
            return None
        return 1, len(view.mix), len(view.rows), len(view.columns)

    def _image(self, name: str) -> View:
        if name not in self.images:
            raise NotCanonical("not the image")
        return whole(self.context, self.context.names[name])

    def follow(self, node: onnx.NodeProto) -> None:
        """Record whether an imported node gives the image as well."""
        if node.op_type in ARITHMETIC and self.images.intersection(node.input):
            (name,) = self.images.intersection(node.input)
            shapes = [
                self.context.examples[self.context.names[n]].shape for n in (name, node.output[0])
            ]
            if shapes[0] == shapes[1] and sum(n in self.context.names for n in node.input) == 1:
                self.images.add(node.output[0])

    def settle(self, name: str) -> None:
        """Write a view as a node of the graph, where a layer reads it."""
        view = self.views.get(name)
        if view is not None and name not in self.context.names:
            self.context.names[name] = _written(self.context, name, view)


def _written(context: Context, name: str, view: View) -> str:
    """Write a view as nodes: factor and offset, part or mirror image, channels."""
    at, channels = view.base, view.mix.shape[1]
    early = _before(view)
    if early is not None:
        at = _affine(context, f"{name}_scaled", at, *early)
    for axis, index, length in (
        (2, view.rows, context.examples[at].shape[2]),
        (3, view.columns, context.examples[at].shape[3]),
    ):
        if is_range(index):
            if len(index) < length:
                part = ops.Slice(axis, int(index[0]), int(index[0]) + len(index))
                at = context.add(f"{name}_part{axis}", part, at)
        else:
            at = context.add(f"{name}_pick{axis}", ops.Pick(axis, index.tolist()), at)
    chosen = view.mix.argmax(axis=1)
    if not np.array_equal(view.mix, np.eye(channels)[chosen]):
        weight = torch.from_numpy(view.mix).float().reshape(*view.mix.shape, 1, 1)
        at = context.add(f"{name}_mixed", ops.conv_from(weight, None), at)
    elif chosen.tolist() != list(range(channels)):
        at = context.add(f"{name}_channels", ops.Pick(1, chosen.tolist()), at)
    if early is None:
        at = _affine(context, f"{name}_scaled", at, view.factor, view.offset)
    if view.flat:
        at = context.add(f"{name}_flat", ops.Reshape(context.examples[at].shape[2:]), at)
    return at


def _before(view: View) -> tuple[Float64, Float64] | None:
    """Factor and offset (B,) of the node's channels that are equal to those of the view's channels.

    None where there are none. They exist where all channels of the view that read one channel of the
    node agree, and shares sum to one.
    """
    if not np.allclose(view.mix.sum(axis=1), 1):
        return None
    factor, offset = np.ones(view.mix.shape[1]), np.zeros(view.mix.shape[1])
    for channel in range(view.mix.shape[1]):
        readers = np.flatnonzero(view.mix[:, channel])
        pairs = {(view.factor[r], view.offset[r]) for r in readers}
        if len(pairs) > 1:
            return None
        factor[channel], offset[channel] = next(iter(pairs), (1.0, 0.0))
    for shares, own, added in zip(view.mix, view.factor, view.offset, strict=True):
        used = shares != 0
        if (factor[used] != own).any() or (offset[used] != added).any():
            return None
    return factor, offset


def _affine(context: Context, name: str, at: str, factor: Float64, offset: Float64) -> str:
    if (factor == 1).all() and (offset == 0).all():
        return at
    module = ops.Affine(len(factor))
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(factor.copy()))
        module.bias.copy_(torch.from_numpy(offset.copy()))
    return context.add(name, module, at)
