"""ONNX convolutions' and pools' windows, and reductions of whole axes."""

from __future__ import annotations

import numpy as np
import torch

from efquantface.graph import ops
from efquantface.importers.onnx.arithmetic import combined, function, scaled, with_scale
from efquantface.importers.onnx.context import Handler, NotCanonical, Operands


def window_pads(op: Operands, source: str, kernel: list[int]) -> list[int]:
    """Padding [top, left, bottom, right] of a two-dimensional window.

    Raises:
        NotCanonical: the window has another number of dimensions.
    """
    auto = op.attrs.get("auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        stride = op.attrs.get("strides", [1, 1])
        reach = _reach(op, kernel)
        total = [
            max((-(-size // s) - 1) * s + k - size, 0)
            for size, s, k in zip(op.size(source)[2:], stride, reach, strict=True)
        ]
        small = [t // 2 for t in total]
        large = [t - t // 2 for t in total]
        begin, end = (small, large) if auto == b"SAME_UPPER" else (large, small)
        pads = [*begin, *end]
    elif auto == b"VALID":
        pads = [0, 0, 0, 0]
    else:
        pads = list(op.attrs.get("pads", [0, 0, 0, 0]))
    if len(pads) != 4:
        raise NotCanonical("only two-dimensional convolutions and pools are supported")
    return pads


def _reach(op: Operands, kernel: list[int]) -> list[int]:
    dilations = op.attrs.get("dilations", [1, 1])
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]


def zeros_around(op: Operands, source: str, pads: list[int]) -> str:
    """Zero rows and columns [top, left, bottom, right]."""
    pad = ops.ZeroPad(0, top=pads[0], bottom=pads[2], left=pads[1], right=pads[3])
    return op.add(pad, source, suffix="_pad")


def _closed_by_ceiling(
    size: tuple[int, ...], kernel: list[int], strides: tuple[int, ...], pads: list[int]
) -> bool:
    """Whether a last window that reaches over the edge gives what the larger padding there gives."""
    for n, k, s, before, after in zip(size, kernel, strides, pads[:2], pads[2:], strict=True):
        wanted = (n + before + after - k) // s + 1
        found = -(-(n + 2 * before - k) // s) + 1
        if (found - 1) * s >= n + before:
            found -= 1  # a window that begins behind the edge
        if after < before or found != wanted:
            return False
    return True


def _pool(op: Operands) -> str:
    kernel, source = list(op.attrs["kernel_shape"]), op.activation()
    strides = tuple(op.attrs.get("strides", (1,) * len(kernel)))
    if any(d != 1 for d in op.attrs.get("dilations", [1, 1])):
        raise NotCanonical("dilated pooling")
    pads = window_pads(op, source, kernel)
    is_max, ceil = op.node.op_type == "MaxPool", bool(op.attrs.get("ceil_mode", 0))
    include = bool(op.attrs.get("count_include_pad", 0))
    size = op.size(source)[2:]
    if not is_max and kernel == list(size) and not any(pads):
        return op.add(ops.GlobalAvgPool(), source)
    window = (kernel[0], kernel[1])
    scale = None
    if pads[:2] != pads[2:]:
        if ceil:
            raise NotCanonical(f"padding {pads} with windows over the edge")
        if (is_max or not include) and _closed_by_ceiling(size, kernel, strides, pads):
            ceil = True
        elif is_max:  # an edge repeated is in the window anyway
            source = repeated_edges(op, source, pads)
            pads = [0] * 4
        else:
            source = zeros_around(op, source, pads)
            scale = None if include else _shares(size, kernel, strides, pads)
            pads, include = [0] * 4, True
    padding = (pads[0], pads[1])
    if is_max:
        return op.add(ops.MaxPool2d(window, strides, padding, ceil_mode=ceil), source)
    pooled = op.add(ops.AvgPool2d(window, strides, padding, ceil, include), source)
    return pooled if scale is None else with_scale(op, pooled, scale)


def _shares(
    size: tuple[int, ...], kernel: list[int], strides: tuple[int, ...], pads: list[int]
) -> torch.Tensor:
    """By what an average over the padding is to be multiplied to be one without it, (H,W)."""
    ones = torch.nn.functional.pad(torch.ones(1, 1, *size), (pads[1], pads[3], pads[0], pads[2]))
    return 1 / torch.nn.functional.avg_pool2d(ones, kernel, strides)[0, 0]


def repeated_edges(op: Operands, source: str, pads: list[int]) -> str:
    """The first and last rows and columns repeated [top, left, bottom, right] times."""
    for axis, before, after in ((2, pads[0], pads[2]), (3, pads[1], pads[3])):
        if before or after:
            size = op.size(source)[axis]
            indices = np.clip(np.arange(-before, size + after), 0, size - 1)
            source = op.add(ops.Take(axis, indices.tolist()), source, suffix="_edge")
    return source


def _global(op: Operands) -> str:
    source = op.activation()
    size = op.size(source)[2:]
    if len(size) != 2:
        raise NotCanonical(f"a pooling of {len(size)} dimensions")
    if op.node.op_type == "GlobalAveragePool":
        return op.add(ops.GlobalAvgPool(), source)
    return op.add(ops.MaxPool2d((size[0], size[1]), (1, 1)), source)


def _reduce(kind: str) -> Handler:
    def handler(op: Operands) -> str:
        source = op.activation()
        before, reduction, after = _STEPS[kind]
        if before == "square":
            source = combined(op, "Mul", source, source)
        elif before:
            source = function(op, before, source)
        result = _reduced(op, source, reduction)
        if after == "sqrt":
            return function(op, "pow", result, 0.5)
        return function(op, after, result) if after else result

    return handler


_STEPS = {
    "ReduceMean": ("", "mean", ""),
    "ReduceMax": ("", "max", ""),
    "ReduceMin": ("", "min", ""),
    "ReduceSum": ("", "sum", ""),
    "ReduceL1": ("abs", "sum", ""),
    "ReduceL2": ("square", "sum", "sqrt"),
    "ReduceSumSquare": ("square", "sum", ""),
    "ReduceLogSumExp": ("exp", "sum", "log"),
}


def _reduced(op: Operands, source: str, reduction: str) -> str:
    shape = op.size(source)
    given = op.axes()
    if given is None and op.attrs.get("noop_with_empty_axes", 0):
        return source
    axes = sorted(a % len(shape) for a in (given or range(len(shape))))
    if 0 in axes:
        raise NotCanonical(f"a {reduction} over axes {given}, the batch among them")
    keep = bool(op.attrs.get("keepdims", 1))
    if axes == [2, 3] and len(shape) == 4 and reduction in ("mean", "max"):
        whole = ops.MaxPool2d((shape[2], shape[3]), (1, 1))
        pooled = op.add(ops.GlobalAvgPool() if reduction == "mean" else whole, source)
        return pooled if keep else op.add(ops.Flatten(), pooled, suffix="_flatten")
    return op.add(ops.Reduce(reduction, axes, keep), source)


def _lrn(op: Operands) -> str:
    """``x / (bias + alpha mean(x^2))^beta``, the mean over neighbouring channels, zeros beyond."""
    source, size = op.activation(), int(op.attrs["size"])
    shape = op.size(source)
    squares = op.add(ops.Reshape([1, shape[1], int(np.prod(shape[2:]))]), combined(op, "Mul", source, source))
    before = (size - 1) // 2
    if 2 * before + 1 != size:
        squares = zeros_around(op, squares, [before, 0, size - 1 - before, 0])
        before = 0
    means = op.add(ops.AvgPool2d((size, 1), (1, 1), (before, 0), False, True), squares)
    means = op.add(ops.Reshape(shape[1:]), means)
    alpha, bias = float(op.attrs.get("alpha", 1e-4)), float(op.attrs.get("bias", 1.0))
    below = function(op, "pow", scaled(op, means, alpha, bias), -float(op.attrs.get("beta", 0.75)))
    return combined(op, "Mul", source, below)


POOLING_HANDLERS: dict[str, Handler] = {
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global,
    "GlobalMaxPool": _global,
    "LRN": _lrn,
    **{kind: _reduce(kind) for kind in _STEPS},
}
