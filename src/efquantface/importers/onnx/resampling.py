"""ONNX operators that resample a map: padding of all kinds, resizing, flips, depth to space and back."""

from __future__ import annotations

import numpy as np
import torch

from efquantface.graph import ops
from efquantface.importers.onnx.arithmetic import combined, with_scale
from efquantface.importers.onnx.axes import take, zeros_along
from efquantface.importers.onnx.context import Array, Handler, NotCanonical, Operands
from efquantface.importers.onnx.folding import NotConstant, run_node

_MODES = {b"reflect": "reflect", b"edge": "edge", b"wrap": "wrap"}


def _pad(op: Operands) -> str:
    source = op.activation()
    shape = op.size(source)
    if op.opset < 11:
        pads, value = list(op.attrs["pads"]), float(op.attrs.get("value", 0.0))
    else:
        pads = _pads_by_axis(op)
        value = float(op.constant(2, np.zeros(1)).item()) if op.has(2) else 0.0
    before, after = pads[: len(shape)], pads[len(shape) :]
    mode = op.attrs.get("mode", b"constant")
    if before[0] or after[0]:
        raise NotCanonical("padding of the batch")
    for axis, (first, last) in enumerate(zip(before, after, strict=True)):  # negative padding cuts
        if first < 0 or last < 0:
            stop = shape[axis] - max(-last, 0)
            source = take(op, source, axis, list(range(max(-first, 0), stop)))
    before, after = [max(p, 0) for p in before], [max(p, 0) for p in after]
    if mode in _MODES:
        for axis, (first, last) in enumerate(zip(before, after, strict=True)):
            picked = np.pad(np.arange(op.size(source)[axis]), (first, last), mode=_MODES[mode])  # type: ignore[call-overload]
            source = take(op, source, axis, picked.tolist())
        return source
    if mode != b"constant":
        raise NotCanonical(f"padding of mode {mode.decode()}")
    return _with_constant(op, source, before, after, value)


def _with_constant(
    op: Operands, source: str, before: list[int], after: list[int], value: float
) -> str:
    """Padding with zeros. Another value needs a shift in front and one behind."""
    if not any((*before, *after)):
        return source
    if value:
        source = op.context.add(f"{op.label}_less", _shift(-value), source)
    if len(before) == 4 and not before[1]:
        source = op.add(ops.ZeroPad(after[1], before[2], after[2], before[3], after[3]), source)
    else:
        for axis, (first, last) in enumerate(zip(before, after, strict=True)):
            source = zeros_along(op, source, axis, first, last)
    return op.context.add(f"{op.label}_more", _shift(value), source) if value else source


@torch.no_grad()
def _shift(value: float) -> ops.Shift:
    shift = ops.Shift((1,))
    shift.bias.fill_(value)
    return shift


def _pads_by_axis(op: Operands) -> list[int]:
    """Padding at the start of all axes, then at their end. From opset 18 a file may name some axes."""
    given, rank = op.constant(1).reshape(-1).tolist(), len(op.shape())
    axes = op.constant(3, np.arange(rank)).reshape(-1).tolist()
    if len(given) != 2 * len(axes):
        raise NotCanonical(f"pads {given} for axes {axes}")
    pads = [0] * (2 * rank)
    for index, axis in enumerate(axes):
        pads[axis % rank] = given[index]
        pads[axis % rank + rank] = given[index + len(axes)]
    return pads


def _resize(op: Operands) -> str:
    """A resize, along height and then along width. A new place is a sum of a few old places."""
    source = op.activation()
    for axis in (2, 3):
        source = _along(op, source, axis, _weights(op, op.shape(), axis))
    return source


def _along(op: Operands, source: str, axis: int, weights: Array) -> str:
    """New places of an axis as sums of its old places; ``weights`` is (new, old)."""
    order = np.argsort(weights == 0, axis=1, kind="stable")
    most = int((weights != 0).sum(axis=1).max())
    total = ""
    for index in order[:, :most].T:
        shares = np.take_along_axis(weights, index[:, None], axis=1)[:, 0]
        part = take(op, source, axis, index.tolist())
        if (shares != 1).any():
            shape = (-1,) if axis == 3 else (-1, 1)
            part = with_scale(op, part, torch.from_numpy(shares.reshape(shape)))
        total = combined(op, "Add", total, part) if total else part
    return total


def _weights(op: Operands, shape: tuple[int, ...], axis: int) -> Array:
    """Weights (new, old) of the node, measured: one row (column) after the other is 1, the rest 0."""
    if len(shape) != 4:
        raise NotCanonical(f"resizing of {shape}")
    old, names = shape[axis], list(op.node.input)
    constants = {n: op.context.constants[n] for n in names[1:] if n in op.context.constants}
    if any(n and n not in constants for n in names[1:]):
        raise NotCanonical("a size that is not constant")
    for place, name in enumerate(names[1:], 1):
        value = constants.get(name)
        if value is None or value.size != 4 or (place == 1 and op.opset > 10):
            continue  # an input that is not one value per axis, or a region of interest
        if place == 3:
            constants[name] = np.asarray([old, 1, *value[2:]], value.dtype)
        elif (value[:2] != 1).any():
            raise NotCanonical("resizing of batch or channels")
    bright = np.zeros((old, 1, *shape[2:]), np.float32)
    for index in range(old):
        bright[(index, slice(None), *((index,) if axis == 2 else (slice(None), index)))] = 1
    try:
        result = run_node(op.node, {names[0]: bright, **constants}, op.opset)[0]
    except NotConstant as error:
        raise NotCanonical(str(error)) from None
    line = result[:, 0, :, 0] if axis == 2 else result[:, 0, 0, :]
    return np.ascontiguousarray(line.T)


def _space_to_depth(op: Operands) -> str:
    block, (_, c, h, w) = int(op.attrs["blocksize"]), op.shape()
    source = op.add(ops.Reshape([c, h // block, block, w // block, block]), op.activation())
    source = op.add(ops.Transpose((0, 3, 5, 1, 2, 4)), source)
    return op.add(ops.Reshape([c * block * block, h // block, w // block]), source)


def _depth_to_space(op: Operands) -> str:
    block, (_, c, h, w) = int(op.attrs["blocksize"]), op.shape()
    left = c // block**2
    if op.attrs.get("mode", b"DCR") == b"DCR":
        sizes, order = [block, block, left, h, w], (0, 3, 4, 1, 5, 2)
    else:
        sizes, order = [left, block, block, h, w], (0, 1, 4, 2, 5, 3)
    source = op.add(ops.Transpose(order), op.add(ops.Reshape(sizes), op.activation()))
    return op.add(ops.Reshape([left, h * block, w * block]), source)


RESAMPLING_HANDLERS: dict[str, Handler] = {
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
    "SpaceToDepth": _space_to_depth,
    "DepthToSpace": _depth_to_space,
}
