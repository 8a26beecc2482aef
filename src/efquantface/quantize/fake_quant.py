"""Fake quantizers: integer arithmetic simulated in float, with gradients for the scales (LSQ).

On the CPU kernels compute them (:mod:`efquantface.quantize.native`). Elsewhere PyTorch's operators do,
which ``torch.compile`` fuses with their neighbours. Scales are stored as logarithms: an optimizer
changes them by ratios, and they stay positive. The gradients are LSQ's (Esser et al. 2020, eq. 3).
Inside the range ``dy/ds = q - x / s`` with ``q = round(x / s)``; outside it is the clipped code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from efquantface.graph import ops
from efquantface.quantize import native

TINY = 1e-12


def round_through(x: Tensor) -> Tensor:
    """Round half to even, as the runtimes do. The gradient passes unchanged."""
    return x + (x.round() - x).detach()


class _FakeQuantize(torch.autograd.Function):
    """``(clamp(round(x / s) + z, qmin, qmax) - z) * s`` with LSQ's gradients, written out.

    For codes inside the range ``dy/dx = 1``, ``dy/ds = q - z - x / s`` and ``dy/dz = 0``. For clipped
    codes these are ``0``, ``q - z`` and ``-s``. Written out, the compiled backward pass is one kernel
    with two sums, three times as fast as the one that autograd derives.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int
    ) -> Tensor:
        ctx.save_for_backward(x, scale, zero_point)
        ctx.qmin, ctx.qmax = qmin, qmax
        codes = torch.clamp(torch.round(x / scale) + zero_point, qmin, qmax)
        return (codes - zero_point) * scale

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (grad,) = grads
        x, scale, zero_point = ctx.saved_tensors
        ratio = x / scale
        unclipped = torch.round(ratio) + zero_point
        codes = torch.clamp(unclipped, ctx.qmin, ctx.qmax)
        inside = unclipped == codes
        grad_x = torch.where(inside, grad, 0.0)
        grad_scale = (grad * (codes - zero_point - torch.where(inside, ratio, 0.0))).sum()
        grad_zero_point = -torch.where(inside, 0.0, grad).sum() * scale
        return grad_x, grad_scale, grad_zero_point, None, None


class ActivationQuantizer(ops.Operator):
    """Fake quantizer of one tensor: ``(clamp(round(x / s) + z, qmin, qmax) - z) * s``.

    It also computes a ReLU or ReLU6 in front of it: with ``qmin`` at the zero point and the range
    limited to ``max_value``, clamping the codes is exactly the activation.

    Args:
        bits: 2 to 8.
        rectified: it computes a ReLU, so no code stands for a negative value.
        max_value: upper limit of the activation (6 for ReLU6), or None.
        symmetric: codes are signed, -2^(b-1) to 2^(b-1) - 1, with zero point 0. Otherwise they are
            unsigned, 0 to 2^b - 1, with a trained zero point.

    Attributes:
        qmin, qmax: the smallest and the largest code, integers.
    """

    kind = "quantizer"
    log_scale: nn.Parameter

    def __init__(
        self,
        bits: int = 8,
        rectified: bool = False,
        max_value: float | None = None,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        self.bits, self.rectified, self.max_value = bits, rectified, max_value
        self.symmetric = symmetric
        half: int = 2 ** (bits - 1)
        self.qmin: int = -half if symmetric and not rectified else 0
        self.qmax: int = half - 1 if symmetric else 2 * half - 1
        self.log_scale = nn.Parameter(torch.zeros(()))
        # share of the range below zero; the zero point is the code nearest to it
        self.zero_share = nn.Parameter(torch.zeros(()), requires_grad=not (rectified or symmetric))
        self.enabled = True

    def attrs(self) -> dict[str, Any]:
        return {
            "bits": self.bits,
            "rectified": self.rectified,
            "max_value": self.max_value,
            "symmetric": self.symmetric,
        }

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.attrs().items())

    @property
    def largest_code(self) -> int:
        """The largest absolute value of a code, as kernels read it."""
        return max(-self.qmin, self.qmax)

    def set_range(self, low: float, high: float) -> None:
        """Let ``qmin`` and ``qmax`` stand for about ``low`` and ``high``.

        Zero is always a code. Symmetric codes span the larger of both ends.
        """
        low, high = (0.0 if self.rectified else min(low, 0.0)), max(high, 0.0)
        if self.symmetric:
            scale, share = max(-low, high) / self.qmax, 0.0
        else:
            scale = (high - low) / self.qmax
            share = -low / max(scale, TINY) / self.qmax
        with torch.no_grad():
            self.log_scale.fill_(math.log(max(scale, TINY)))
            self.zero_share.fill_(share)

    @torch.no_grad()
    def rescale(self, factor: float) -> None:
        """Let codes stand for values ``factor`` times as large."""
        self.log_scale.add_(math.log(factor))

    def scale(self) -> Tensor:
        """The scale s, a float32 scalar."""
        scale = self.log_scale.exp()
        if self.max_value is not None:
            scale = scale.clamp(max=self.max_value / self.qmax)
        return scale

    def zero_point(self) -> Tensor:
        """The zero point z, an integer in the range of codes, as a float scalar."""
        return round_through((self.zero_share * self.qmax).clamp(0, self.qmax))

    def forward(self, x: Tensor) -> Tensor:
        if not self.enabled:
            return torch.clamp(x, 0, self.max_value) if self.rectified else x
        if native.applies(x):
            return native.quantize(x, self.now())
        apply: Any = _FakeQuantize.apply
        quantized: Tensor = apply(x, *self.now())
        return quantized

    def now(self) -> native.Codes:
        """The current scale, zero point and codes."""
        return native.Codes(self.scale(), self.zero_point(), self.qmin, self.qmax)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Integer codes of ``x``, uint8 or (symmetric) int8."""
        codes = torch.round(x / self.scale()) + self.zero_point()
        codes = codes.clamp(self.qmin, self.qmax)
        return codes.to(torch.int8 if self.symmetric else torch.uint8)

    @torch.no_grad()
    def dequantize(self, codes: Tensor) -> Tensor:
        """The float32 values that integer codes stand for."""
        return (codes.float() - self.zero_point()) * self.scale()

    @torch.no_grad()
    def qparams(self) -> tuple[float, int]:
        """(scale, zero point), as files hold them."""
        return float(self.scale()), int(self.zero_point())


class InputQuantizer(ops.Operator):
    """The fixed quantizer of the pixels. Nothing in it is trained.

    Where all channels have the same normalization, the codes are the pixels themselves. Then
    ``(code - zero_point) * scale`` differs from ``(pixel - mean) / std`` by the constant
    ``(mean - zero_point) / std``. The first layer's bias absorbs it: exactly inside, and with an error
    of half a pixel value in the padded border if the mean is 127.5. Otherwise the normalized input is
    quantized, and its zero point stands for the padding value.

    Args:
        mean, std: the normalization in pixel values, one value per channel.
        scale, zero_point: of unsigned codes.
        pixels: whether the codes are the pixels.
        symmetric: the file holds signed codes with zero point 0: ours minus ``zero_point`` (128).
    """

    kind = "input_quantizer"
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        scale: float,
        zero_point: int,
        pixels: bool,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32))
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32))
        self.scale_value, self.zero_point_value, self.pixels = scale, zero_point, pixels
        self.symmetric = symmetric
        self.enabled = True

    def attrs(self) -> dict[str, Any]:
        return {
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "scale": self.scale_value,
            "zero_point": self.zero_point_value,
            "pixels": self.pixels,
            "symmetric": self.symmetric,
        }

    @property
    def largest_code(self) -> int:
        """The largest absolute value of a code, as kernels read it."""
        return 128 if self.symmetric else 255

    def normalized(self, x: Tensor) -> Tensor:
        return (x - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.pixels:
            return (torch.round(x).clamp(0, 255) - self.zero_point_value) * self.scale_value
        normal = self.normalized(x)
        if not self.enabled:
            return normal
        codes = torch.round(normal / self.scale_value) + self.zero_point_value
        return (codes.clamp(0, 255) - self.zero_point_value) * self.scale_value

    def qparams(self) -> tuple[float, int]:
        """(scale, zero point) of the first layer's input, as files hold them."""
        return self.scale_value, 0 if self.symmetric else self.zero_point_value
