"""Operators with weights, or with values per channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from efquantface.graph.ops.base import Operator


class Normalize(Operator):
    """From pixels (N,3,H,W) in 0..255 to the first layer's input: ``(x - mean) / std`` per channel."""

    kind = "normalize"
    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32))
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)

    def attrs(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}


class Conv2d(Operator, nn.Conv2d):
    """Convolution of (N,C,H,W) with zero padding, always with a bias."""

    kind = "conv"

    def attrs(self) -> dict[str, Any]:
        return conv_attrs(self)


class Linear(Operator, nn.Linear):
    """Linear layer over the last axis, always with a bias."""

    kind = "linear"

    def attrs(self) -> dict[str, Any]:
        return {"in_features": self.in_features, "out_features": self.out_features}


class Affine(Operator):
    """``x * weight + bias`` per channel (axis 1): BatchNorm in inference, dlib's affine, Mul, Add."""

    kind = "affine"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    @property
    def channels(self) -> int:
        return self.weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return x * self.weight.view(shape) + self.bias.view(shape)

    def attrs(self) -> dict[str, Any]:
        return {"channels": self.channels}


class PReLU(Operator):
    """``max(x, 0) + slope * min(x, 0)`` with one slope per channel."""

    kind = "prelu"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((channels,), 0.25))

    @property
    def channels(self) -> int:
        return self.slope.numel()

    def forward(self, x: Tensor) -> Tensor:
        slope = self.slope.view((1, -1) + (1,) * (x.dim() - 2))
        return slope * x + (1 - slope) * F.relu(x)

    def attrs(self) -> dict[str, Any]:
        return {"channels": self.channels}


def conv_attrs(m: Any) -> dict[str, Any]:
    """The constructor's arguments of a convolution, float or quantized."""
    return {
        "in_channels": m.in_channels,
        "out_channels": m.out_channels,
        "kernel_size": m.kernel_size,
        "stride": m.stride,
        "padding": m.padding,
        "dilation": m.dilation,
        "groups": m.groups,
    }


def conv_from(weight: Tensor, bias: Tensor | None, **attrs: object) -> Conv2d:
    """A convolution with given weights (O,I/groups,kh,kw). The bias is zero where None."""
    groups = int(attrs.get("groups", 1))  # type: ignore[call-overload]
    conv = Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        kernel_size=(weight.shape[2], weight.shape[3]),
        bias=True,
        **attrs,  # type: ignore[arg-type]
    )
    with torch.no_grad():
        conv.weight.copy_(weight)
        assert conv.bias is not None
        conv.bias.zero_() if bias is None else conv.bias.copy_(bias)
    return conv


def linear_from(weight: Tensor, bias: Tensor | None) -> Linear:
    """A linear layer with given weights (out, in). The bias is zero where None."""
    linear = Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.zero_() if bias is None else linear.bias.copy_(bias)
    return linear
