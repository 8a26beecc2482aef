"""The vocabulary of canonical graphs: the few operators that every backbone is reduced to.

Each is an ``nn.Module`` that the graph calls by name, so that weights train, move and save as in any
PyTorch network. An operator's configuration is plain data (see :mod:`efquantface.graph.graph`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Normalize(nn.Module):
    """Pixels (N,3,H,W) in 0..255 to the first layer's input, ``(x - mean) / std`` per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32))
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)


class Affine(nn.Module):
    """``x * weight + bias`` per channel (dim 1): BatchNorm in inference, dlib's affine, Mul, Add."""

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


class PReLU(nn.Module):
    """``max(x, 0) + slope * min(x, 0)`` with one slope per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((channels,), 0.25))

    @property
    def channels(self) -> int:
        return self.slope.numel()

    def forward(self, x: Tensor) -> Tensor:
        slope = self.slope.view((1, -1) + (1,) * (x.dim() - 2))
        return slope * x + (1 - slope) * F.relu(x)


class Clamp(nn.Module):
    """Limit to [low, high]; None leaves a side open. ReLU is (0, None), ReLU6 (0, 6)."""

    def __init__(self, low: float | None, high: float | None) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        # the gradients of ReLU and Hardtanh are one pass over memory, those of clamp are three
        if (self.low, self.high) == (0, None):
            return F.relu(x)
        if self.low is not None and self.high is not None:
            return F.hardtanh(x, self.low, self.high)
        return torch.clamp(x, self.low, self.high)


class Add(nn.Module):
    """Sum of two tensors of one shape."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Multiply(nn.Module):
    """Product of two tensors, one of which may be one value a channel (squeeze-and-excitation)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y


class ZeroPad(nn.Module):
    """Zeros at the end of channels, and around height and width (dlib's add_prev, asymmetric pads).

    Args:
        channels: zero channels appended.
        top, bottom, left, right: zero rows and columns.
    """

    def __init__(
        self, channels: int = 0, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0
    ) -> None:
        super().__init__()
        self.channels, self.top, self.bottom, self.left, self.right = (
            channels,
            top,
            bottom,
            left,
            right,
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (self.left, self.right, self.top, self.bottom, 0, self.channels))


class GlobalAvgPool(nn.Module):
    """Mean over height and width, keeping both as 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3), keepdim=True)


class Flatten(nn.Module):
    """(N,C,H,W) to (N,C*H*W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def conv_from(weight: Tensor, bias: Tensor | None, **attrs: object) -> nn.Conv2d:
    """A convolution around given weights (O,I/groups,kh,kw); the bias is zero where None."""
    groups = int(attrs.get("groups", 1))  # type: ignore[call-overload]
    conv = nn.Conv2d(
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


def linear_from(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer around given weights (out, in); the bias is zero where None."""
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.zero_() if bias is None else linear.bias.copy_(bias)
    return linear
