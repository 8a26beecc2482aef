"""Layers with integer weights and biases, trained in float: convolution, linear, per-channel affine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from efquantface.graph import ops
from efquantface.quantize.fake_quant import TINY, round_through
from efquantface.quantize.pairs import clamp_codes

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
    input_scale: Tensor
    limit: int

    def _init_latents(self, shape: tuple[int, ...], bits: int) -> None:
        self.bits, self.limit = bits, 2 ** (bits - 1) - 1
        self.latent = nn.Parameter(torch.zeros(shape))
        self.latent_bias = nn.Parameter(torch.zeros(shape[0]))
        self.register_buffer("unit", torch.ones(shape[0]))
        self.register_buffer("bias_unit", torch.ones(shape[0]))
        # a copy of the scale of the quantizer in front, see ``refresh_biases``
        self.register_buffer("input_scale", torch.zeros(()))
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

    def scale(self) -> Tensor:
        """Scales (O,) of the weight's output channels."""
        raise NotImplementedError

    @torch.no_grad()
    def refresh_bias(self, input_scale: float) -> int:
        """Follow the input quantizer; returns how many channels needed a larger weight scale."""
        self.input_scale.fill_(input_scale)
        return 0

    def quantized_bias(self) -> Tensor:
        """The bias as the file's int32 stands for it."""
        if not self.enabled:
            return self.bias
        scale = (self.input_scale * self.scale().detach()).clamp(min=_SMALLEST)
        return round_through(self.bias / scale) * scale


class QuantAffine(_IntegerLayer):
    """Per-channel scale and shift of codes: a depthwise 1x1 convolution in integers.

    Each channel has one weight, whose code is +-127 exactly; its scale is derived, not learned.
    Only where the int32 bias would overflow is the scale larger.

    Args:
        channels: of the input and output.
        nonpositive: training gives no channel a weight above zero, as a PReLU whose rest its quantizer
            does (:func:`split_prelu`) has none.
    """

    kind = "quant_affine"

    def __init__(self, channels: int, nonpositive: bool = False) -> None:
        super().__init__()
        self.nonpositive = nonpositive
        self._init_latents((channels,), bits=8)

    def attrs(self) -> dict[str, Any]:
        return {"channels": self.channels, "nonpositive": self.nonpositive}

    @property
    def weight(self) -> Tensor:
        """The real-valued weight (C,); the gradient passes a limit unchanged."""
        if not self.nonpositive:
            return super().weight
        return (self.latent - self.latent.detach().clamp(min=0)) * self.unit

    @classmethod
    def identity(cls, channels: int) -> QuantAffine:
        """A copy of codes for a reader that wants other scales; nothing in it is trained."""
        made = cls(channels)
        made.set_weight(torch.ones(channels), torch.zeros(channels))
        return made.requires_grad_(False)

    @property
    def channels(self) -> int:
        return self.latent.numel()

    def scale(self) -> Tensor:
        floor = self.bias.abs() / (self.input_scale * BIAS_LIMIT).clamp(min=_SMALLEST)
        return torch.maximum(self.weight.abs() / self.limit, floor).clamp(min=TINY)

    def quantized_weight(self) -> Tensor:
        """The weight (C,) as its int8 codes stand for it."""
        if not self.enabled:
            return self.weight
        scale = self.scale().detach()
        return round_through(self.weight / scale) * scale

    @torch.no_grad()
    def weight_codes(self) -> tuple[Tensor, Tensor]:
        """(int8 codes (C,1,1,1), float32 scales (C,))."""
        scale = self.scale()
        return torch.round(self.weight / scale).to(torch.int8).view(-1, 1, 1, 1), scale

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return x * self.quantized_weight().view(shape) + self.quantized_bias().view(shape)


class _QuantizedWeight(_IntegerLayer):
    """Shared by convolution and linear: per-output-channel symmetric codes of a weight.

    Attributes:
        pair_limit: what two codes of one sign in a channel may sum up to (:mod:`pairs`); None: any.
    """

    log_scale: nn.Parameter
    min_scale: Tensor

    def _init_quantizer(self, shape: tuple[int, ...], bits: int, pair_limit: int | None) -> None:
        self._init_latents(shape, bits)
        self.pair_limit = pair_limit
        self.log_scale = nn.Parameter(torch.zeros(shape[0]))
        # keeps |bias| / (input scale * weight scale) inside int32 for channels that are nearly dead
        self.register_buffer("min_scale", torch.zeros(shape[0]))

    def scale(self) -> Tensor:
        return torch.maximum(self.log_scale.exp(), self.min_scale)

    @torch.no_grad()
    def set_scale(self, scale: Tensor) -> None:
        """Set the scales (O,) of the output channels."""
        self.log_scale.copy_(scale.clamp(min=TINY).log())

    @torch.no_grad()
    def refresh_bias(self, input_scale: float) -> int:
        """Follow the input quantizer, raising scales where the int32 bias would overflow."""
        self.input_scale.fill_(input_scale)
        self.min_scale.copy_(self.bias.abs() / (input_scale * BIAS_LIMIT))
        return int((self.min_scale > self.log_scale.exp()).sum())

    @torch.no_grad()
    def rescale(self, factor: float) -> None:
        """Multiply the layer's output by ``factor`` without changing a code."""
        self.unit.mul_(factor)
        self.bias_unit.mul_(factor)
        self.log_scale.add_(float(torch.tensor(factor, dtype=torch.float64).log()))
        self.min_scale.mul_(factor)

    def quantized_weight(self) -> Tensor:
        """The weight as the integers of the file stand for it."""
        if not self.enabled:
            return self.weight
        scale = self._shaped(self.scale())
        return self._clamped(round_through(self.weight / scale)) * scale

    @torch.no_grad()
    def ratio(self) -> Tensor:
        """The weight in units of its scale."""
        return self.weight / self._shaped(self.scale())

    @torch.no_grad()
    def code_size(self) -> Tensor:
        """One code in units of the latent weight, for each channel (O,1,...)."""
        return self._shaped(self.scale() / self.unit)

    @torch.no_grad()
    def nearest_codes(self) -> Tensor:
        """The weight's codes, as floats."""
        return self._clamped(torch.round(self.ratio()))

    @torch.no_grad()
    def weight_codes(self) -> tuple[Tensor, Tensor]:
        """(int8 codes of the weight's shape, float32 scales (O,))."""
        return self.nearest_codes().to(torch.int8), self.scale()

    def _clamped(self, codes: Tensor) -> Tensor:
        return clamp_codes(codes, self.limit, self.pair_limit)

    def _bits_attrs(self) -> dict[str, Any]:
        limited = {} if self.pair_limit is None else {"pair_limit": self.pair_limit}
        return {"bits": self.bits, **limited}


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
        pair_limit: int | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = (
            in_channels,
            out_channels,
            kernel_size,
        )
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        shape = (out_channels, in_channels // groups, *kernel_size)
        self._init_quantizer(shape, bits, pair_limit)

    def attrs(self) -> dict[str, Any]:
        return {**ops.conv_attrs(self), **self._bits_attrs()}

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

    def __init__(
        self, in_features: int, out_features: int, bits: int, pair_limit: int | None = None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self._init_quantizer((out_features, in_features), bits, pair_limit)

    def attrs(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            **self._bits_attrs(),
        }

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.quantized_weight(), self.quantized_bias())
