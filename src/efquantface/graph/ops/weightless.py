"""Operators without weights that compute: activations, sums, products, averages."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from efquantface.graph.ops.base import Operator


class Clamp(Operator):
    """Limits values to [low, high]; None leaves a side open. ReLU is (0, None), ReLU6 (0, 6)."""

    kind = "clamp"
    moves_codes = True

    def __init__(self, low: float | None, high: float | None) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        # gradients of ReLU and Hardtanh read memory once, those of clamp three times
        if (self.low, self.high) == (0, None):
            return F.relu(x)
        if self.low is not None and self.high is not None:
            return F.hardtanh(x, self.low, self.high)
        return torch.clamp(x, self.low, self.high)

    def attrs(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high}


class Add(Operator):
    """Sum of two tensors of the same shape."""

    kind = "add"

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Multiply(Operator):
    """Product of two tensors. One may have one value per channel (squeeze-and-excitation)."""

    kind = "multiply"

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y


class Sigmoid(Operator, nn.Sigmoid):
    """``1 / (1 + exp(-x))``."""

    kind = "sigmoid"


class MaxPool2d(Operator, nn.MaxPool2d):
    """Maximum of each window of (N,C,H,W)."""

    kind = "maxpool"
    moves_codes = True

    def attrs(self) -> dict[str, Any]:
        return pool_attrs(self)


class AvgPool2d(Operator, nn.AvgPool2d):
    """Mean of each window of (N,C,H,W)."""

    kind = "avgpool"

    def attrs(self) -> dict[str, Any]:
        return {**pool_attrs(self), "count_include_pad": self.count_include_pad}


class GlobalAvgPool(Operator):
    """Mean over height and width, which stay as axes of length 1."""

    kind = "globalavgpool"

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3), keepdim=True)


def pool_attrs(m: nn.MaxPool2d | nn.AvgPool2d) -> dict[str, Any]:
    """The constructor's arguments of a pooling, with sizes as pairs."""
    return {
        "kernel_size": _pair(m.kernel_size),
        "stride": _pair(m.stride),
        "padding": _pair(m.padding),
        "ceil_mode": m.ceil_mode,
    }


def _pair(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (int(value),) * 2
