"""The kernels of :mod:`efquantface.quantize.kernels` as differentiable operators on the CPU.

Tensors are (N,C), (N,C,H,W) or (N,...,C), float32. Maps are stored with channels last, so that the
channels of a place are one row in memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from efquantface.quantize import kernels
from efquantface.quantize.kernels import Floats, Sums


class Codes(NamedTuple):
    """A quantizer's current scale and zero point (scalars), and its smallest and largest code."""

    scale: Tensor
    zero_point: Tensor
    qmin: int
    qmax: int


def applies(x: Tensor) -> bool:
    """Whether the kernels can compute ``x``: float32, on the CPU, not traced by a compiler."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()


def quantize(x: Tensor, codes: Codes) -> Tensor:
    """``(clamp(round(x / s) + z, qmin, qmax) - z) * s`` with LSQ's gradients."""
    return _apply(_Quantize, x, *codes)


def scaled(x: Tensor, weight: Tensor, bias: Tensor, codes: Codes) -> Tensor:
    """``x * weight + bias`` through the quantizer ``codes``; weight and bias are (C,)."""
    return _apply(_Scaled, x, weight, bias, *codes)


def leaky(x: Tensor, slope: Tensor) -> Tensor:
    """``max(x, 0) + slope * min(x, 0)``; the slope is (C,)."""
    return _apply(_Leaky, x, slope)


def prelu(
    x: Tensor,
    before: Codes,
    weight: Tensor,
    bias: Tensor,
    product: Codes,
    total: Codes,
    limit: float = 0.0,
) -> Tensor:
    """``total(a + product(min(a, limit) * weight + bias))``, ``a = before(x)``; weight, bias (C,)."""
    return _apply(_PReLU, x, weight, bias, limit, *before, *product, *total)


def _apply(function: Any, *args: object) -> Tensor:
    threads = torch.get_num_threads()
    kernels.use_threads(threads)
    if torch.get_num_threads() != threads:  # numba shares torch's OpenMP runtime
        torch.set_num_threads(threads)
    result: Tensor = function.apply(*args)
    return result


def _dense(x: Tensor) -> Tensor:
    """The same values in a memory order that :func:`_rows` can read."""
    if x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous()


def _rows(x: Tensor) -> Floats:
    """A dense tensor's memory as (rows, channels)."""
    ordered = x.detach().permute(0, 2, 3, 1) if x.dim() == 4 else x.detach()
    rows: Floats = ordered.reshape(-1, ordered.shape[-1]).numpy()
    return rows


def _table(*codes: tuple[Any, ...]) -> Floats:
    """Rows of parameters for the kernels."""
    scales = np.array([float(c[0].detach()) for c in codes], np.float32)
    rest = np.array([[float(c[1].detach()), c[2], c[3]] for c in codes], np.float32)
    return np.column_stack([scales, np.float32(1) / scales, rest])


def _gradients(sums: Sums, q: Floats) -> list[Tensor | None]:
    """Gradients of scale and zero point of each quantizer, and None for its qmin and qmax."""
    total = sums.sum(axis=0)
    found: list[Tensor | None] = []
    for at, scale in enumerate(q[:, 0]):
        found += [
            torch.tensor(total[2 * at], dtype=torch.float32),
            torch.tensor(-total[2 * at + 1] * scale, dtype=torch.float32),
            None,
            None,
        ]
    return found


def _runs(rows: Floats) -> int:
    return -(-len(rows) // kernels.RUN)


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *codes: Any) -> Tensor:
        x = _dense(x)
        y, ctx.q = torch.empty_like(x), _table(codes)
        kernels.quantize(_rows(x), _rows(y), ctx.q[0])
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,) = ctx.saved_tensors
        rows, out = _rows(x), torch.empty_like(x)
        sums = np.empty((_runs(rows), 2))
        kernels.quantize_backward(rows, _rows(_dense(grads[0])), _rows(out), ctx.q[0], sums)
        return out, *_gradients(sums, ctx.q)


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, *codes: Any) -> Tensor:
        x = _dense(x)
        y, ctx.q = torch.empty_like(x), _table(codes)
        kernels.scaled(_rows(x), _rows(y), _vector(weight), _vector(bias), ctx.q[0])
        ctx.save_for_backward(x, weight, bias)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _channel_gradients(ctx, grads[0], kernels.scaled_backward, ctx.q[0])


class _Leaky(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        x = _dense(x)
        y = torch.empty_like(x)
        kernels.leaky(_rows(x), _rows(y), _vector(slope))
        ctx.save_for_backward(x, slope)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, slope = ctx.saved_tensors
        rows, out = _rows(x), torch.empty_like(x)
        by_slope = np.empty((_runs(rows), len(slope)), np.float32)
        kernels.leaky_backward(rows, _rows(_dense(grads[0])), _rows(out), _vector(slope), by_slope)
        return out, _summed(by_slope)


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, limit: float, *codes: Any
    ) -> Tensor:
        x, ctx.limit = _dense(x), np.float32(limit)
        y, ctx.q = torch.empty_like(x), _table(codes[:4], codes[4:8], codes[8:])
        kernels.prelu(_rows(x), _rows(y), _vector(weight), _vector(bias), ctx.q, ctx.limit)
        ctx.save_for_backward(x, weight, bias)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight, bias, *rest = _channel_gradients(
            ctx, grads[0], kernels.prelu_backward, ctx.q, ctx.limit
        )
        return x, weight, bias, None, *rest


def _summed(runs: Floats) -> Tensor:
    """The sum over runs (runs, channels), always in the same order."""
    return torch.from_numpy(runs.sum(axis=0, dtype=np.float64).astype(np.float32))


def _vector(x: Tensor) -> Floats:
    values: Floats = x.detach().contiguous().numpy()
    return values


def _channel_gradients(ctx: Any, grad: Tensor, kernel: Any, q: Floats, *more: np.float32) -> Any:
    """Gradients of x, weight, bias and each quantizer. ``more`` are the kernel's last arguments."""
    x, weight, bias = ctx.saved_tensors
    rows, out = _rows(x), torch.empty_like(x)
    runs = _runs(rows)
    sums = np.empty((runs, 2 * len(ctx.q)))
    by_weight, by_bias = np.empty((2, runs, len(weight)), np.float32)
    given = _rows(_dense(grad))
    vectors = _vector(weight), _vector(bias)
    kernel(rows, given, _rows(out), *vectors, q, sums, by_weight, by_bias, *more)
    return (
        out,
        _summed(by_weight),
        _summed(by_bias),
        *_gradients(sums, ctx.q),
    )
