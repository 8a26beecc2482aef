"""The quantizers' arithmetic in one pass over memory, compiled at first use (numba).

If each step of a formula read and wrote whole tensors, training would spend most of its time here. Each
kernel reads its tensor once and sums the gradients of scales, zero points and slopes on the way. It sums
fixed runs of rows, and then the runs in order. So results do not depend on the number of threads.

A quantizer is one row of float32 parameters: ``[scale, 1 / scale, zero point, qmin, qmax]``. Its formula
is ``y = (clamp(round(x / s) + z, qmin, qmax) - z) * s``. Its gradients are LSQ's
(:mod:`efquantface.quantize.fake_quant`). NaN stays NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Sums = npt.NDArray[np.float64]
_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])

# torch runs on OpenMP, too; OpenVINO's TBB would print a line at every fork
cast(Any, numba.config).THREADING_LAYER_PRIORITY = ["omp", "workqueue", "tbb"]
RUN = 256  # rows that are summed together
_ZERO = np.float32(0)


def _compiled(kernel: _Kernel) -> _Kernel:
    """The kernel, compiled for this machine at first use. Sums may be reordered for vectors.

    The compiled code is kept on disk, in the package's folder or a cache, if one of them is writable.
    """
    options: dict[str, Any] = {"parallel": True, "error_model": "numpy"}
    compiler = numba.njit(fastmath={"contract", "nsz", "reassoc"}, **options)
    made = compiler(kernel)
    with suppress(RuntimeError):
        made.enable_caching()
    return cast(_Kernel, made)


def use_threads(count: int) -> None:
    """Let kernels run on ``count`` threads, or on as many as numba allows."""
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    numba.set_num_threads(max(1, min(count, most)))


@_compiled
def quantize(x: Floats, y: Floats, q: Floats) -> None:
    """``y = Q(x)`` for float32 (rows, columns)."""
    scale, inverse, zero_point, qmin, qmax = q[0], q[1], q[2], q[3], q[4]
    rows, columns = x.shape
    for i in numba.prange(rows):
        for j in range(columns):
            code = min(max(np.rint(x[i, j] * inverse) + zero_point, qmin), qmax)
            y[i, j] = (code - zero_point) * scale


@_compiled
def quantize_backward(x: Floats, grad: Floats, out: Floats, q: Floats, sums: Sums) -> None:
    """Gradients of :func:`quantize`: of ``x`` in ``out``, of scale and zero point in ``sums`` (runs, 2).

    The second sum is of the gradients of clipped values. Times ``-scale`` it is the zero point's.
    """
    inverse, zero_point, qmin, qmax = q[1], q[2], q[3], q[4]
    rows, columns = x.shape
    for run in numba.prange(len(sums)):
        by_scale, lost = np.float64(0), np.float64(0)
        for i in range(run * RUN, min(rows, (run + 1) * RUN)):
            row_scale, row_lost = _ZERO, _ZERO
            for j in range(columns):
                g, ratio = grad[i, j], x[i, j] * inverse
                free = np.rint(ratio) + zero_point
                code = min(max(free, qmin), qmax)
                inside = g if free == code else _ZERO
                row_scale += g * (code - zero_point - (ratio if free == code else _ZERO))
                row_lost += g - inside
                out[i, j] = inside
            by_scale += row_scale
            lost += row_lost
        sums[run, 0], sums[run, 1] = by_scale, lost


@_compiled
def scaled(x: Floats, y: Floats, weight: Floats, bias: Floats, q: Floats) -> None:
    """``y = Q(x * weight + bias)`` for (rows, channels): a per-channel affine and its quantizer."""
    scale, inverse, zero_point, qmin, qmax = q[0], q[1], q[2], q[3], q[4]
    rows, channels = x.shape
    for i in numba.prange(rows):
        for j in range(channels):
            value = x[i, j] * weight[j] + bias[j]
            code = min(max(np.rint(value * inverse) + zero_point, qmin), qmax)
            y[i, j] = (code - zero_point) * scale


@_compiled
def scaled_backward(
    x: Floats,
    grad: Floats,
    out: Floats,
    weight: Floats,
    bias: Floats,
    q: Floats,
    sums: Sums,
    by_weight: Floats,
    by_bias: Floats,
) -> None:
    """Gradients of :func:`scaled`; those of weight and bias are (runs, channels)."""
    inverse, zero_point, qmin, qmax = q[1], q[2], q[3], q[4]
    rows, channels = x.shape
    for run in numba.prange(len(sums)):
        by_scale, lost = np.float64(0), np.float64(0)
        run_weight, run_bias = np.zeros(channels, np.float32), np.zeros(channels, np.float32)
        for i in range(run * RUN, min(rows, (run + 1) * RUN)):
            row_scale, row_lost = _ZERO, _ZERO
            for j in range(channels):
                g = grad[i, j]
                ratio = (x[i, j] * weight[j] + bias[j]) * inverse
                free = np.rint(ratio) + zero_point
                code = min(max(free, qmin), qmax)
                inside = g if free == code else _ZERO
                row_scale += g * (code - zero_point - (ratio if free == code else _ZERO))
                row_lost += g - inside
                run_weight[j] += inside * x[i, j]
                run_bias[j] += inside
                out[i, j] = inside * weight[j]
            by_scale += row_scale
            lost += row_lost
        sums[run, 0], sums[run, 1] = by_scale, lost
        by_weight[run], by_bias[run] = run_weight, run_bias


@_compiled
def leaky(x: Floats, y: Floats, slope: Floats) -> None:
    """A PReLU without quantizers for (rows, channels)."""
    rows, channels = x.shape
    for i in numba.prange(rows):
        for j in range(channels):
            y[i, j] = max(x[i, j], _ZERO) + min(x[i, j], _ZERO) * slope[j]


@_compiled
def leaky_backward(x: Floats, grad: Floats, out: Floats, slope: Floats, by_slope: Floats) -> None:
    """Gradients of :func:`leaky`; that of the slope is (runs, channels)."""
    rows, channels = x.shape
    for run in numba.prange(len(by_slope)):
        run_slope = np.zeros(channels, np.float32)
        for i in range(run * RUN, min(rows, (run + 1) * RUN)):
            for j in range(channels):
                g = grad[i, j]
                run_slope[j] += g * min(x[i, j], _ZERO)
                out[i, j] = g * slope[j] if x[i, j] <= _ZERO else g
        by_slope[run] = run_slope


@_compiled
def prelu(x: Floats, y: Floats, weight: Floats, bias: Floats, q: Floats, limit: np.float32) -> None:
    """A PReLU in integers for (rows, channels): ``y = Q2(a + Q1(min(a, limit) * weight + bias))``.

    ``a = Q0(x)``. The rows of ``q`` (3,5) are the quantizers of input, product and sum. ``limit`` is
    zero, or infinity where the product's codes end at its zero point.
    """
    rows, channels = x.shape
    s0, i0, z0, qmin0, qmax0 = q[0, 0], q[0, 1], q[0, 2], q[0, 3], q[0, 4]
    s1, i1, z1, qmin1, qmax1 = q[1, 0], q[1, 1], q[1, 2], q[1, 3], q[1, 4]
    s2, i2, z2, qmin2, qmax2 = q[2, 0], q[2, 1], q[2, 2], q[2, 3], q[2, 4]
    for i in numba.prange(rows):
        for j in range(channels):
            a = (min(max(np.rint(x[i, j] * i0) + z0, qmin0), qmax0) - z0) * s0
            value = min(a, limit) * weight[j] + bias[j]
            product = (min(max(np.rint(value * i1) + z1, qmin1), qmax1) - z1) * s1
            code = min(max(np.rint((a + product) * i2) + z2, qmin2), qmax2)
            y[i, j] = (code - z2) * s2


@_compiled
def prelu_backward(
    x: Floats,
    grad: Floats,
    out: Floats,
    weight: Floats,
    bias: Floats,
    q: Floats,
    sums: Sums,
    by_weight: Floats,
    by_bias: Floats,
    limit: np.float32,
) -> None:
    """Gradients of :func:`prelu`; ``sums`` is (runs, 6), two per quantizer."""
    rows, channels = x.shape
    s0, i0, z0, qmin0, qmax0 = q[0, 0], q[0, 1], q[0, 2], q[0, 3], q[0, 4]
    s1, i1, z1, qmin1, qmax1 = q[1, 0], q[1, 1], q[1, 2], q[1, 3], q[1, 4]
    i2, z2, qmin2, qmax2 = q[2, 1], q[2, 2], q[2, 3], q[2, 4]
    for run in numba.prange(len(sums)):
        scale0, scale1, scale2 = np.float64(0), np.float64(0), np.float64(0)
        lost0, lost1, lost2 = np.float64(0), np.float64(0), np.float64(0)
        run_weight, run_bias = np.zeros(channels, np.float32), np.zeros(channels, np.float32)
        for i in range(run * RUN, min(rows, (run + 1) * RUN)):
            d0, l0, d1, l1, d2, l2 = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
            for j in range(channels):
                g, ratio0 = grad[i, j], x[i, j] * i0
                free0 = np.rint(ratio0) + z0
                code0 = min(max(free0, qmin0), qmax0)
                a = (code0 - z0) * s0
                factor = min(a, limit)
                ratio1 = (factor * weight[j] + bias[j]) * i1
                free1 = np.rint(ratio1) + z1
                code1 = min(max(free1, qmin1), qmax1)
                ratio2 = (a + (code1 - z1) * s1) * i2
                free2 = np.rint(ratio2) + z2
                code2 = min(max(free2, qmin2), qmax2)
                g2 = g if free2 == code2 else _ZERO
                d2 += g * (code2 - z2 - (ratio2 if free2 == code2 else _ZERO))
                l2 += g - g2
                g1 = g2 if free1 == code1 else _ZERO
                d1 += g2 * (code1 - z1 - (ratio1 if free1 == code1 else _ZERO))
                l1 += g2 - g1
                run_weight[j] += g1 * factor
                run_bias[j] += g1
                total = g2 + (g1 * weight[j] if a <= limit else _ZERO)
                g0 = total if free0 == code0 else _ZERO
                d0 += total * (code0 - z0 - (ratio0 if free0 == code0 else _ZERO))
                l0 += total - g0
                out[i, j] = g0
            scale0, lost0, scale1 = scale0 + d0, lost0 + l0, scale1 + d1
            lost1, scale2, lost2 = lost1 + l1, scale2 + d2, lost2 + l2
        sums[run, 0], sums[run, 1], sums[run, 2] = scale0, lost0, scale1
        sums[run, 3], sums[run, 4], sums[run, 5] = lost1, scale2, lost2
        by_weight[run], by_bias[run] = run_weight, run_bias
