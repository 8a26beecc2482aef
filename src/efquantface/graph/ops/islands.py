"""Islands of transformer-like backbones: operators in float between integer layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from efquantface.graph.ops.base import Operator


class Concat(Operator):
    """Tensors concatenated along one axis."""

    kind = "concat"
    island = True

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, dim=self.axis)

    def attrs(self) -> dict[str, Any]:
        return {"axis": self.axis}


class LayerNorm(Operator):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last axis."""

    kind = "layernorm"
    island = True

    def __init__(self, features: int, eps: float) -> None:
        super().__init__()
        self.features, self.eps = features, eps
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.features,), self.weight, self.bias, self.eps)

    def attrs(self) -> dict[str, Any]:
        return {"features": self.features, "eps": self.eps}


class Standardize(Operator):
    """``(x - mean) / sqrt(var + eps)`` over the last axis of (N,G,L), for group and instance norms."""

    kind = "standardize"
    island = True

    def __init__(self, groups: int, eps: float) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=self.eps)

    def attrs(self) -> dict[str, Any]:
        return {"groups": self.groups, "eps": self.eps}


class Gelu(Operator):
    """``x / 2 (1 + erf(x / sqrt 2))``."""

    kind = "gelu"
    island = True

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class Softmax(Operator):
    """Softmax over the last axis."""

    kind = "softmax"
    island = True

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x, dim=-1)


class L2Normalize(Operator):
    """``x / max(||x||, eps)`` over the last axis."""

    kind = "l2normalize"
    island = True

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1, eps=self.eps)

    def attrs(self) -> dict[str, Any]:
        return {"eps": self.eps}


class MatMul(Operator):
    """Matrix product of two activations over their last two axes."""

    kind = "matmul"
    island = True

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ y


class Scale(Operator):
    """``x * weight`` with a trained weight, which is broadcast.

    Args:
        shape: of the weight, without the batch; broadcast as in ONNX.
    """

    kind = "scale"
    island = True

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(tuple(shape)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight

    def attrs(self) -> dict[str, Any]:
        return {"shape": tuple(self.weight.shape)}


class Shift(Operator):
    """``x + bias`` with a trained bias, which is broadcast.

    Args:
        shape: of the bias, without the batch; broadcast as in ONNX.
    """

    kind = "shift"
    island = True

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(tuple(shape)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias

    def attrs(self) -> dict[str, Any]:
        return {"shape": tuple(self.bias.shape)}
