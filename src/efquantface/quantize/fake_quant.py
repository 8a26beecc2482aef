"""Fake quantizers: integer arithmetic played in float, with gradients for the steps (LSQ).

All are written with plain operators, which ``torch.compile`` fuses with what surrounds them. Steps
are stored as logarithms, so that an optimizer moves them by ratios and they stay positive. The
gradients are LSQ's (Esser et al. 2020, eq. 3): for ``q = round(x / s)`` inside the range
``dy/ds = q - x / s``, outside the clipped code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BIAS_LIMIT = 2.0**29  # int32 accumulators leave room for the products beside the bias
_TINY = 1e-12
_SMALLEST = 1e-30


def round_through(x: Tensor) -> Tensor:
    """Round half to even, as the runtimes do; the gradient passes unchanged."""
    return x + (x.round() - x).detach()


class _FakeQuantize(torch.autograd.Function):
    """``(clamp(round(x / s) + z, 0, L) - z) * s`` with LSQ's gradients, written out.

    For codes inside the range ``dy/dx = 1``, ``dy/ds = q - z - x / s``, ``dy/dz = 0``; for clipped
    ones ``0``, ``q - z`` and ``-s``. Written out, the compiled backward pass is one kernel with two
    sums, three times as fast as what autograd derives from the forward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, zero: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward(x, step, zero)
        ctx.levels = levels
        codes = torch.clamp(torch.round(x / step) + zero, 0, levels)
        return (codes - zero) * step

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        (grad,) = grads
        x, step, zero = ctx.saved_tensors
        ratio = x / step
        unclipped = torch.round(ratio) + zero
        codes = torch.clamp(unclipped, 0, ctx.levels)
        inside = unclipped == codes
        grad_x = torch.where(inside, grad, 0.0)
        grad_step = (grad * (codes - zero - torch.where(inside, ratio, 0.0))).sum()
        grad_zero = -torch.where(inside, 0.0, grad).sum() * step
        return grad_x, grad_step, grad_zero, None


class ActivationQuantizer(nn.Module):
    """Affine fake quantizer of one tensor: ``(clamp(round(x / s) + z, 0, 2^b - 1) - z) * s``.

    It also stands for a ReLU or ReLU6 in front of it: with zero point 0 and its range limited to
    ``max_value``, the clamp of the codes is exactly the activation.

    Args:
        bits: 2 to 8.
        rectified: the tensor is a ReLU's, so the zero point is fixed at 0.
        max_value: upper limit of the activation (6 for ReLU6), or None.
    """

    log_step: nn.Parameter

    def __init__(
        self, bits: int = 8, rectified: bool = False, max_value: float | None = None
    ) -> None:
        super().__init__()
        self.bits, self.rectified, self.max_value = bits, rectified, max_value
        self.levels = 2**bits - 1
        self.log_step = nn.Parameter(torch.zeros(()))
        # share of the range below zero; the zero point is its nearest code
        self.zero = nn.Parameter(torch.zeros(()), requires_grad=not rectified)
        self.enabled = True

    def extra_repr(self) -> str:
        return f"bits={self.bits}, rectified={self.rectified}, max_value={self.max_value}"

    def set_range(self, low: float, high: float) -> None:
        """Make codes 0 and 2^b - 1 stand for about ``low`` and ``high`` (zero is always a code)."""
        low, high = (0.0 if self.rectified else min(low, 0.0)), max(high, 0.0)
        step = max((high - low) / self.levels, _TINY)
        with torch.no_grad():
            self.log_step.fill_(float(torch.tensor(step, dtype=torch.float64).log()))
            self.zero.fill_(-low / step / self.levels)

    def step(self) -> Tensor:
        """The step s, a float32 scalar."""
        step = self.log_step.exp()
        if self.max_value is not None:
            step = step.clamp(max=self.max_value / self.levels)
        return step

    def zero_point(self) -> Tensor:
        """The zero point z, an integer in 0..2^b - 1, as a float scalar."""
        return round_through((self.zero * self.levels).clamp(0, self.levels))

    def forward(self, x: Tensor) -> Tensor:
        if not self.enabled:
            return torch.clamp(x, 0, self.max_value) if self.rectified else x
        apply: Any = _FakeQuantize.apply
        quantized: Tensor = apply(x, self.step(), self.zero_point(), self.levels)
        return quantized

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Integer codes (uint8) of ``x``."""
        codes = torch.round(x / self.step()) + self.zero_point()
        return codes.clamp(0, self.levels).to(torch.uint8)

    @torch.no_grad()
    def dequantize(self, codes: Tensor) -> Tensor:
        """The float32 values that integer codes stand for."""
        return (codes.float() - self.zero_point()) * self.step()

    @torch.no_grad()
    def qparams(self) -> tuple[float, int]:
        """(step, zero point) as they are written to a file."""
        return float(self.step()), int(self.zero_point())


class InputQuantizer(nn.Module):
    """The fixed quantizer of the pixels; nothing in it is learned.

    With a normalization that is the same for all channels the codes are the pixels themselves, and
    ``(code - zero_point) * step`` misses ``(pixel - mean) / std`` by the constant
    ``(mean - zero_point) / std``, which the first layer's bias absorbs - exactly inside, and with
    half a grey level's error in the padded border where the mean is 127.5. Otherwise the
    normalized input is quantized, its zero point standing for the padding value.

    Args:
        mean, std: the normalization in grey levels, one value a channel.
        step, zero_point: of the codes.
        pixels: True where the codes are the pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: list[float], std: list[float], step: float, zero_point: int, pixels: bool
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        self.step_value, self.zero_value, self.pixels = step, zero_point, pixels
        self.enabled = True

    def normalized(self, x: Tensor) -> Tensor:
        return (x - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.pixels:
            return (torch.round(x).clamp(0, 255) - self.zero_value) * self.step_value
        normal = self.normalized(x)
        if not self.enabled:
            return normal
        codes = torch.round(normal / self.step_value) + self.zero_value
        return (codes.clamp(0, 255) - self.zero_value) * self.step_value

    def qparams(self) -> tuple[float, int]:
        """(step, zero point) of the first layer's input."""
        return self.step_value, self.zero_value


class _IntegerLayer(nn.Module):
    """What integer layers share: latent weights, and an int32 bias.

    Weights are trained in units of their own initial quantization step, channel by channel
    (``weight = latent * unit``). Folded BatchNorms and equalization leave channels of very
    different size, which an optimizer with one learning rate would treat very differently; in
    these units a learning rate means the same for each channel of each network.
    """

    latent: nn.Parameter
    latent_bias: nn.Parameter
    unit: Tensor
    bias_unit: Tensor
    input_step: Tensor
    limit: int

    def _init_latents(self, shape: tuple[int, ...], bits: int) -> None:
        self.bits, self.limit = bits, 2 ** (bits - 1) - 1
        self.latent = nn.Parameter(torch.zeros(shape))
        self.latent_bias = nn.Parameter(torch.zeros(shape[0]))
        self.register_buffer("unit", torch.ones(shape[0]))
        self.register_buffer("bias_unit", torch.ones(shape[0]))
        # a copy of the step of the quantizer in front, see ``refresh_biases``
        self.register_buffer("input_step", torch.zeros(()))
        self.enabled = True

    def _shaped(self, per_channel: Tensor) -> Tensor:
        return per_channel.view(-1, *(1,) * (self.latent.dim() - 1))

    @property
    def weight(self) -> Tensor:
        """The real-valued weight (O,...)."""
        return self.latent * self._shaped(self.unit)

    @property
    def bias(self) -> Tensor:
        """The real-valued bias (O,)."""
        return self.latent_bias * self.bias_unit

    @torch.no_grad()
    def set_weight(self, weight: Tensor, bias: Tensor, floor: float = _TINY) -> None:
        """Take over a float layer's weight and bias; ``floor`` is the least size of a channel."""
        largest = weight.flatten(1).abs().amax(dim=1) if weight.dim() > 1 else weight.abs()
        largest = largest.clamp(min=floor)
        self.unit.copy_(largest / self.limit)
        self.bias_unit.copy_(torch.maximum(largest, bias.abs()))
        self.latent.copy_(weight / self._shaped(self.unit))
        self.latent_bias.copy_(bias / self.bias_unit)

    def step(self) -> Tensor:
        """Steps (O,) of the weight's output channels."""
        raise NotImplementedError

    @torch.no_grad()
    def refresh_bias(self, input_step: float) -> int:
        """Follow the input quantizer; returns how many channels needed a larger weight step."""
        self.input_step.fill_(input_step)
        return 0

    def quantized_bias(self) -> Tensor:
        """The bias as the file's int32 stands for it."""
        if not self.enabled:
            return self.bias
        step = (self.input_step * self.step().detach()).clamp(min=_SMALLEST)
        return round_through(self.bias / step) * step


class QuantAffine(_IntegerLayer):
    """Per-channel scale and shift of codes: a depthwise 1x1 convolution in integers.

    Each channel has one weight, which is +-127 steps exactly; its step is derived, not learned.
    Only where the int32 bias would overflow is the step larger.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._init_latents((channels,), bits=8)

    @property
    def channels(self) -> int:
        return self.latent.numel()

    def step(self) -> Tensor:
        floor = self.bias.abs() / (self.input_step * BIAS_LIMIT).clamp(min=_SMALLEST)
        return torch.maximum(self.weight.abs() / self.limit, floor).clamp(min=_TINY)

    def quantized_weight(self) -> Tensor:
        """The weight (C,) as its int8 codes stand for it."""
        if not self.enabled:
            return self.weight
        step = self.step().detach()
        return round_through(self.weight / step) * step

    @torch.no_grad()
    def weight_codes(self) -> tuple[Tensor, Tensor]:
        """(int8 codes (C,1,1,1), float32 steps (C,))."""
        step = self.step()
        return torch.round(self.weight / step).to(torch.int8).view(-1, 1, 1, 1), step

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return x * self.quantized_weight().view(shape) + self.quantized_bias().view(shape)


class _QuantizedWeight(_IntegerLayer):
    """Shared by convolution and linear: per-output-channel symmetric codes of a weight."""

    log_step: nn.Parameter
    min_step: Tensor

    def _init_quantizer(self, shape: tuple[int, ...], bits: int) -> None:
        self._init_latents(shape, bits)
        self.log_step = nn.Parameter(torch.zeros(shape[0]))
        # keeps |bias| / (input step * weight step) inside int32 for channels that are nearly dead
        self.register_buffer("min_step", torch.zeros(shape[0]))

    def step(self) -> Tensor:
        return torch.maximum(self.log_step.exp(), self.min_step)

    @torch.no_grad()
    def set_step(self, step: Tensor) -> None:
        """Set the steps (O,) of the output channels."""
        self.log_step.copy_(step.clamp(min=_TINY).log())

    @torch.no_grad()
    def refresh_bias(self, input_step: float) -> int:
        """Follow the input quantizer, raising steps where the int32 bias would overflow."""
        self.input_step.fill_(input_step)
        self.min_step.copy_(self.bias.abs() / (input_step * BIAS_LIMIT))
        return int((self.min_step > self.log_step.exp()).sum())

    @torch.no_grad()
    def rescale(self, factor: float) -> None:
        """Multiply the layer's output by ``factor`` without changing a code."""
        self.unit.mul_(factor)
        self.bias_unit.mul_(factor)
        self.log_step.add_(float(torch.tensor(factor, dtype=torch.float64).log()))
        self.min_step.mul_(factor)

    def quantized_weight(self) -> Tensor:
        """The weight as the integers of the file stand for it."""
        if not self.enabled:
            return self.weight
        step = self._shaped(self.step())
        codes = torch.clamp(round_through(self.weight / step), -self.limit, self.limit)
        return codes * step

    @torch.no_grad()
    def weight_codes(self) -> tuple[Tensor, Tensor]:
        """(int8 codes of the weight's shape, float32 steps (O,))."""
        step = self.step()
        codes = torch.round(self.weight / self._shaped(step)).clamp(-self.limit, self.limit)
        return codes.to(torch.int8), step


class QuantConv2d(_QuantizedWeight):
    """Convolution with fake-quantized weights; its input is quantized by the operator before it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
        bits: int,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = (
            in_channels,
            out_channels,
            kernel_size,
        )
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self._init_quantizer((out_channels, in_channels // groups, *kernel_size), bits)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(
            x,
            self.quantized_weight(),
            self.quantized_bias(),
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )


class QuantLinear(_QuantizedWeight):
    """Linear layer with fake-quantized weights; the embedding layer is one with a float output."""

    def __init__(self, in_features: int, out_features: int, bits: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self._init_quantizer((out_features, in_features), bits)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.quantized_weight(), self.quantized_bias())
