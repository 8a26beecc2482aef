"""Windows of ONNX convolutions and poolings, and reductions of whole axes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

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
    """Rows and columns of zeros [top, left, bottom, right]."""
    pad = ops.ZeroPad(0, top=pads[0], bottom=pads[2], left=pads[1], right=pads[3])
    return op.add(pad, source, suffix="_pad")


@dataclass(frozen=True)
class _Windows:
    """Windows over height and width; ``pads`` are [top, left, bottom, right]."""

    size: tuple[int, ...]
    kernel: list[int]
    strides: tuple[int, int]
    pads: list[int]

    def counts(self, pads: list[int], ceil: bool) -> list[int]:
        """The number of windows along each axis; with ``ceil`` with a last one that begins inside."""
        found = []
        for n, k, s, before, after in zip(
            self.size, self.kernel, self.strides, pads[:2], pads[2:], strict=True
        ):
            left = n + before + after - k
            last = -(-left // s) if ceil else left // s
            found.append(last + 1 - (ceil and last * s >= n + before))
        return found

    def over(self, pads: list[int]) -> list[int]:
        """How far the last window of each axis reaches beyond the padding with ``ceil``."""
        sums = [n + a + b for n, a, b in zip(self.size, pads[:2], pads[2:], strict=True)]
        ends = [(c - 1) * s for c, s in zip(self.counts(pads, True), self.strides, strict=True)]
        return [max(e + k - n, 0) for e, k, n in zip(ends, self.kernel, sums, strict=True)]

    def just(self, ceil: bool) -> list[int]:
        """Padding [top, left, bottom, right] that ends where the last windows end."""
        ends = [
            max((count - 1) * s + k - n - before, 0)
            for count, n, k, s, before in zip(
                self.counts(self.pads, ceil),
                self.size,
                self.kernel,
                self.strides,
                self.pads[:2],
                strict=True,
            )
        ]
        return [*self.pads[:2], *ends]

    @property
    def closed_by_ceiling(self) -> bool:
        """Whether rounding up gives the same windows as the larger padding at the end."""
        before, after = self.pads[:2], self.pads[2:]
        same = self.counts([*before, *before], True) == self.counts(self.pads, False)
        return same and all(b <= a for b, a in zip(before, after, strict=True))

    def shares(self, counted: list[int], zeros: list[int]) -> torch.Tensor:
        """The share of each window that lies in the map or counts as such, (H,W).

        Args:
            counted: padding [top, left, bottom, right] whose zeros count.
            zeros: all padding.
        """
        sides = zip(self.size, counted[:2], counted[2:], strict=True)
        ones = torch.ones(1, 1, *(n + a + b for n, a, b in sides))
        top, left, bottom, right = (z - c for z, c in zip(zeros, counted, strict=True))
        padded = F.pad(ones, (left, right, top, bottom))
        return F.avg_pool2d(padded, self.kernel, self.strides)[0, 0]


def _pool(op: Operands) -> str:
    if len(op.shape()) != 4:
        return _line_pool(op)
    return _map_pool(op, op.activation())


def _line_pool(op: Operands) -> str:
    """A pooling along one axis: of (N,C,L), or of (N,C,D,H,W) along D only."""
    shape, count = op.shape(), len(op.attrs["kernel_shape"])
    each = {"kernel_shape": [1] * count, "strides": [1] * count, "dilations": [1] * count}
    given = {name: list(op.attrs.get(name, default)) for name, default in each.items()}
    pads = list(op.attrs.get("pads", [0] * 2 * count))
    beyond = any(n != 1 for values in given.values() for n in values[1:])
    if len(shape) not in (3, 5) or beyond or any(pads[1:count]) or any(pads[count + 1 :]):
        raise NotCanonical(f"a pooling of shape {shape}")
    attrs = {name: [values[0], 1] for name, values in given.items()}
    attrs = {**op.attrs, **attrs, "pads": [pads[0], 0, pads[count], 0]}
    rows = ops.Reshape([*shape[1:3], int(np.prod(shape[3:]))])
    found = _map_pool(replace(op, attrs=attrs), op.add(rows, op.activation(), suffix="_rows"))
    return op.add(ops.Reshape([shape[1], op.size(found)[2], *shape[3:]]), found)


def _map_pool(op: Operands, source: str) -> str:
    kernel = list(op.attrs["kernel_shape"])
    if any(d != 1 for d in op.attrs.get("dilations", [1, 1])):
        raise NotCanonical("dilated pooling")
    pads = window_pads(op, source, kernel)
    down, right = op.attrs.get("strides", (1, 1))
    strides = (int(down), int(right))
    windows = _Windows(op.size(source)[2:], kernel, strides, pads)
    ceil = bool(op.attrs.get("ceil_mode", 0)) and any(windows.over(pads))
    if op.node.op_type == "AveragePool":
        return _average(op, source, windows, ceil)
    if pads[:2] != pads[2:]:
        if not ceil and windows.closed_by_ceiling:
            ceil, pads = True, pads[:2] * 2
        else:  # a repeated edge adds no new value to its window
            source = repeated_edges(op, source, windows.just(ceil))
            ceil, pads = False, [0] * 4
    pool = ops.MaxPool2d((kernel[0], kernel[1]), strides, (pads[0], pads[1]), ceil_mode=ceil)
    return op.add(pool, source)


def _average(op: Operands, source: str, windows: _Windows, ceil: bool) -> str:
    pads, kernel = windows.pads, windows.kernel
    include = bool(op.attrs.get("count_include_pad", 0)) and any(pads)
    if kernel == list(windows.size) and not any(pads):
        return op.add(ops.GlobalAvgPool(), source)
    if pads[:2] != pads[2:] and not ceil and not include and windows.closed_by_ceiling:
        ceil, pads = True, pads[:2] * 2
    window = (kernel[0], kernel[1])
    if pads[:2] == pads[2:] and not (ceil and include):
        padding = (pads[0], pads[1])
        return op.add(ops.AvgPool2d(window, windows.strides, padding, ceil, include), source)
    over = windows.over(pads) if ceil else [0, 0]
    zeros = [*pads[:2], pads[2] + over[0], pads[3] + over[1]]
    shares = windows.shares(pads if include else [0] * 4, zeros)
    pool = ops.AvgPool2d(window, windows.strides, (0, 0), False, True)
    pooled = op.add(pool, zeros_around(op, source, zeros))
    return pooled if bool((shares == 1).all()) else with_scale(op, pooled, 1 / shares)


def repeated_edges(op: Operands, source: str, pads: list[int]) -> str:
    """First and last rows and columns, repeated [top, left, bottom, right] times."""
    for axis, before, after in ((2, pads[0], pads[2]), (3, pads[1], pads[3])):
        if before or after:
            size = op.size(source)[axis]
            indices = np.clip(np.arange(-before, size + after), 0, size - 1)
            source = op.add(ops.Pick(axis, indices.tolist()), source, suffix="_edge")
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
            source = function(op, "pow", source, 2.0)
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
    """``x / (bias + alpha mean(x^2))^beta``, with the mean over neighbouring channels (zeros beyond)."""
    source, size = op.activation(), int(op.attrs["size"])
    shape = op.size(source)
    rows = ops.Reshape([1, shape[1], int(np.prod(shape[2:]))])
    squares = op.add(rows, function(op, "pow", source, 2.0))
    before = (size - 1) // 2
    if 2 * before + 1 != size:
        squares = zeros_around(op, squares, [before, 0, size - 1 - before, 0])
        before = 0
    means = op.add(ops.AvgPool2d((size, 1), (1, 1), (before, 0), False, True), squares)
    means = op.add(ops.Reshape(shape[1:]), means)
    alpha, bias = float(op.attrs.get("alpha", 1e-4)), float(op.attrs.get("bias", 1.0))
    below = function(op, "pow", scaled(op, means, alpha, bias), -float(op.attrs.get("beta", 0.75)))
    return combined(op, "Mul", source, below)


REDUCTION_HANDLERS: dict[str, Handler] = {kind: _reduce(kind) for kind in _STEPS}
POOLING_HANDLERS: dict[str, Handler] = {
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global,
    "GlobalMaxPool": _global,
    "LRN": _lrn,
    **REDUCTION_HANDLERS,
}
