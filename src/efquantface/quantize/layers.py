"""Layers with integer weights and biases, trained in float: convolution, linear, per-channel affine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from efquantface.graph import ops
from efquantface.quantize.fake_quant import TINY, round_through

BIAS_LIMIT = 2.0**29  # int32 accumulators leave room for the products beside the bias
_SMALLEST = 1e-30


class _IntegerLayer(ops.Operator):
    """What integer layers share: latent weights, and an int32 bias.

    Weights are trained in units of their channel's largest weight (``weight = latent * unit``).
    Folded BatchNorms and equalization leave channels of very different size, which an optimizer
    with one learning rate would treat very differently; in these units a learning rate means the
    same for each channel of each network, at any number of bits.
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
    def set_weight(self, weight: Tensor, bias: Tensor, floor: float = TINY) -> None:
        """Take over a float layer's weight and bias; ``floor`` is the least size of a channel."""
        largest = weight.flatten(1).abs().amax(dim=1) if weight.dim() > 1 else weight.abs()
        largest = largest.clamp(min=floor)
        self.unit.copy_(largest)
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

    Args:
        channels: of the input and output.
        falling: training gives no channel a weight above zero, as a PReLU whose rest its quantizer
            does (:func:`split_prelu`) has none.
    """

    kind = "quant_affine"

    def __init__(self, channels: int, falling: bool = False) -> None:
        super().__init__()
        self.falling = falling
        self._init_latents((channels,), bits=8)

    def attrs(self) -> dict[str, Any]:
        return {"channels": self.channels, "falling": self.falling}

    @property
    def weight(self) -> Tensor:
        """The real-valued weight (C,); the gradient passes a limit unchanged."""
        if not self.falling:
            return super().weight
        return (self.latent - self.latent.detach().clamp(min=0)) * self.unit

    @classmethod
    def identity(cls, channels: int) -> QuantAffine:
        """A copy of codes for a reader that wants other steps; nothing in it is trained."""
        made = cls(channels)
        made.set_weight(torch.ones(channels), torch.zeros(channels))
        return made.requires_grad_(False)

    @property
    def channels(self) -> int:
        return self.latent.numel()

    def step(self) -> Tensor:
        floor = self.bias.abs() / (self.input_step * BIAS_LIMIT).clamp(min=_SMALLEST)
        return torch.maximum(self.weight.abs() / self.limit, floor).clamp(min=TINY)

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
        self.log_step.copy_(step.clamp(min=TINY).log())

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

    kind = "quant_conv"

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

    def attrs(self) -> dict[str, Any]:
        return {**ops.conv_attrs(self), "bits": self.bits}

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

    kind = "quant_linear"

    def __init__(self, in_features: int, out_features: int, bits: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self._init_quantizer((out_features, in_features), bits)

    def attrs(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bits": self.bits,
        }

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.quantized_weight(), self.quantized_bias())
