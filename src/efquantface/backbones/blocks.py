"""Blocks that several backbones share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from efquantface.graph import ops

ACTIVATIONS = ("prelu", "relu6", "relu")


def activation(kind: str, channels: int) -> nn.Module:
    """The nonlinearity ``kind``, one of ``ACTIVATIONS``.

    Raises:
        KeyError: there is no such kind.
    """
    return {"prelu": nn.PReLU(channels), "relu6": nn.ReLU6(), "relu": nn.ReLU()}[kind]


class ConvBN(nn.Module):
    """Convolution and BatchNorm: (B,inputs,H,W) to (B,outputs,H/stride,W/stride)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 1,
        stride: int = 1,
        pad: int = 0,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, pad, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        normalized: Tensor = self.bn(self.conv(x))
        return normalized


class ConvAct(ConvBN):
    """Convolution, BatchNorm and a nonlinearity."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 1,
        stride: int = 1,
        pad: int = 0,
        groups: int = 1,
        act: str = "prelu",
    ) -> None:
        super().__init__(inputs, outputs, size, stride, pad, groups)
        self.act = activation(act, outputs)

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.act(super().forward(x))
        return activated


class Bottleneck(nn.Module):
    """Inverted residual (Sandler et al. 2018): 1x1 that widens, 3x3 depthwise, 1x1 that narrows.

    Args:
        inner: channels in between.
        expand: with the first 1x1 convolution; without it ``inner`` is ``inputs``.
        residual: add the input.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        inner: int,
        stride: int = 1,
        *,
        residual: bool,
        act: str = "prelu",
        expand: bool = True,
    ) -> None:
        super().__init__()
        self.expand = ConvAct(inputs, inner, act=act) if expand else nn.Identity()
        self.depthwise = ConvAct(inner, inner, 3, stride, 1, inner, act)
        self.project = ConvBN(inner, outputs)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.residual else out


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018): a map times 1x1 - ReLU - 1x1 - sigmoid of its means."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.pool = ops.GlobalAvgPool()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.relu = nn.ReLU()
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)
        self.sigmoid = nn.Sigmoid()
        self.multiply = ops.Multiply()

    def forward(self, x: Tensor) -> Tensor:
        weighted: Tensor = self.multiply(
            x, self.sigmoid(self.fc2(self.relu(self.fc1(self.pool(x)))))
        )
        return weighted


class Times(nn.Module):
    """``x * factor + offset`` with constants that checkpoints do not hold.

    Args:
        factor, offset: the constants.
        island: it stays in float, as in attention, and has no offset. Otherwise it works on maps
            (B,C,H,W) and is folded into the layer in front of it.
    """

    def __init__(self, factor: float, offset: float = 0.0, *, island: bool = False) -> None:
        super().__init__()
        self.factor, self.offset, self.island = factor, offset, island

    def canonical(self, shape: tuple[int, ...]) -> ops.Scale | ops.Affine:
        """The operator that it is for values of this shape."""
        made = ops.Scale((1,) * (len(shape) - 1)) if self.island else ops.Affine(shape[1])
        with torch.no_grad():
            made.weight.fill_(self.factor)
            if isinstance(made, ops.Affine):
                made.bias.fill_(self.offset)
        return made

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.offset
