"""Operators of transformer-like backbones: what moves values, and what stays in float.

``Reshape``, ``Transpose`` and ``Slice`` move values without computing, so they hand on integer codes
as they are. The others (``LayerNorm``, ``Gelu``, ``Softmax``, ``L2Normalize``, ``MatMul``, ``Scale``,
``Shift``, ``Concat``) compute in float between the integer layers: islands.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Reshape(nn.Module):
    """(N, ...) to (N, *shape); the batch stays free."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(int(v) for v in shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *self.shape)


class Transpose(nn.Module):
    """Axes in another order; the batch stays first.

    Args:
        order: a permutation that begins with 0.
    """

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.order = tuple(int(v) for v in order)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


class Slice(nn.Module):
    """``x[start:stop]`` along one axis that is not the batch."""

    def __init__(self, axis: int, start: int, stop: int) -> None:
        super().__init__()
        self.axis, self.start, self.stop = axis, start, stop

    def forward(self, x: Tensor) -> Tensor:
        return x.narrow(self.axis, self.start, self.stop - self.start)


class Concat(nn.Module):
    """Tensors one behind the other along one axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, dim=self.axis)


class LayerNorm(nn.Module):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last axis."""

    def __init__(self, features: int, eps: float) -> None:
        super().__init__()
        self.features, self.eps = features, eps
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.features,), self.weight, self.bias, self.eps)


class Gelu(nn.Module):
    """``x / 2 (1 + erf(x / sqrt 2))``."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class Softmax(nn.Module):
    """Softmax over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x, dim=-1)


class L2Normalize(nn.Module):
    """``x / max(||x||, eps)`` over the last axis."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1, eps=self.eps)


class MatMul(nn.Module):
    """Product of two activations' last two axes."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ y


class Scale(nn.Module):
    """``x * weight``, the trained weight spread over the axes it lacks.

    Args:
        shape: of the weight, as ONNX spreads it (without the batch).
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(tuple(shape)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Shift(nn.Module):
    """``x + bias``, the trained bias spread over the axes it lacks.

    Args:
        shape: of the bias, as ONNX spreads it (without the batch).
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(tuple(shape)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias
