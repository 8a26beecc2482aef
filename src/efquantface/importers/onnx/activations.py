"""ONNX activations. Most are composed of sums, products, limits and a few functions."""

from __future__ import annotations

import torch
from torch import Tensor

from efquantface.graph import ops
from efquantface.importers.onnx.arithmetic import (
    combined,
    function,
    per_channel,
    scaled,
    spread,
    with_scale,
)
from efquantface.importers.onnx.context import Handler, Operands
from efquantface.importers.onnx.patterns import GELU

_SELU = (1.67326319217681884765625, 1.05070102214813232421875)  # ONNX's defaults


def _relu(op: Operands) -> str:
    return op.add(ops.Clamp(0.0, None), op.activation())


def _clip(op: Operands) -> str:
    if op.opset < 11:
        low, high = op.attrs.get("min"), op.attrs.get("max")
    else:
        low = op.constant(1).item() if op.has(1) else None
        high = op.constant(2).item() if op.has(2) else None
    low = None if low is None or low < -1e30 else float(low)
    high = None if high is None or high > 1e30 else float(high)
    return op.add(ops.Clamp(low, high), op.activation())


@torch.no_grad()
def _bent(op: Operands, slope: Tensor) -> str:
    module = ops.PReLU(op.shape()[1])
    module.slope.copy_(slope.expand(module.channels))
    return op.add(module, op.activation())


def _prelu(op: Operands) -> str:
    """A PReLU. Slopes are [C,1,1], [1,C,1,1], [1] or, from MXNet, [C].

    Slopes of another shape multiply the negative part.
    """
    slope, shape = op.tensor(1), op.shape()
    if slope.numel() == 1 or (slope.dim() == 1 and len(slope) == shape[1]):
        return _bent(op, slope.flatten())
    channels = per_channel(op, 1, len(shape))
    if channels is not None and len(channels) == shape[1]:
        return _bent(op, channels)
    last = slope.flatten()
    if len(shape) != 4 or len(last) != shape[-1] or slope.shape[-1] != shape[-1]:
        positive = op.add(ops.Clamp(0.0, None), op.activation(), suffix="_positive")
        negative = op.add(ops.Clamp(None, 0.0), op.activation(), suffix="_negative")
        return combined(op, "Add", positive, with_scale(op, negative, spread(op, slope, negative)))
    source = op.add(ops.Transpose((0, 3, 1, 2)), op.activation(), suffix="_channels")
    module = ops.PReLU(len(last))
    with torch.no_grad():
        module.slope.copy_(last)
    return op.add(ops.Transpose((0, 2, 3, 1)), op.add(module, source))


def _leaky_relu(op: Operands) -> str:
    return _bent(op, torch.tensor([float(op.attrs.get("alpha", 0.01))]))


def _sigmoid(op: Operands) -> str:
    return op.add(ops.Sigmoid(), op.activation())


def _limited(op: Operands, source: str, alpha: float, beta: float) -> str:
    """``min(max(alpha x + beta, 0), 1)``."""
    return op.add(ops.Clamp(0.0, 1.0), scaled(op, source, alpha, beta))


def _hard_sigmoid(op: Operands) -> str:
    alpha, beta = op.attrs.get("alpha", 0.2), op.attrs.get("beta", 0.5)
    return _limited(op, op.activation(), float(alpha), float(beta))


def _hard_swish(op: Operands) -> str:
    x = op.activation()
    return combined(op, "Mul", x, _limited(op, x, 1 / 6, 0.5))


def _swish(op: Operands) -> str:
    x = op.activation()
    inside = scaled(op, x, float(op.attrs.get("alpha", 1.0)))
    return combined(op, "Mul", x, op.add(ops.Sigmoid(), inside))


def _mish(op: Operands) -> str:
    x = op.activation()
    return combined(op, "Mul", x, function(op, "tanh", function(op, "softplus", x)))


def _gelu(op: Operands) -> str:
    x = op.activation()
    if op.attrs.get("approximate", b"none") == b"none":
        return op.add(ops.Gelu(), x)
    cubed = scaled(op, function(op, "pow", x, 3.0), 0.044715)
    inside = scaled(op, combined(op, "Add", x, cubed), (2 / torch.pi) ** 0.5)
    half = scaled(op, function(op, "tanh", inside), 0.5, 0.5)
    return combined(op, "Mul", x, half)


def _elu(op: Operands) -> str:
    return function(op, "elu", op.activation(), float(op.attrs.get("alpha", 1.0)))


def _selu(op: Operands) -> str:
    alpha, gamma = (
        float(op.attrs.get(k, v)) for k, v in zip(("alpha", "gamma"), _SELU, strict=True)
    )
    return scaled(op, function(op, "elu", op.activation(), alpha), gamma)


def _celu(op: Operands) -> str:
    alpha = float(op.attrs.get("alpha", 1.0))
    return scaled(op, function(op, "elu", scaled(op, op.activation(), 1 / alpha), 1.0), alpha)


def _softsign(op: Operands) -> str:
    x = op.activation()
    return combined(op, "Div", x, scaled(op, function(op, "abs", x), 1.0, 1.0))


def _pow(op: Operands) -> str:
    exponent, x = op.constant(1), op.activation()
    if exponent.size != 1:  # only of positive values, which have all powers
        powers = spread(op, op.tensor(1), x)
        return function(op, "exp", with_scale(op, function(op, "log", x), powers))
    value = float(exponent.reshape(()))
    return x if value == 1 else function(op, "pow", x, value)


def _function(name: str) -> Handler:
    return lambda op: function(op, name, op.activation())


ACTIVATION_HANDLERS: dict[str, Handler] = {
    "Relu": _relu,
    "Clip": _clip,
    "PRelu": _prelu,
    "LeakyRelu": _leaky_relu,
    "Sigmoid": _sigmoid,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Swish": _swish,
    "Mish": _mish,
    "Gelu": _gelu,
    GELU: _gelu,
    "Elu": _elu,
    "Selu": _selu,
    "Celu": _celu,
    "Softsign": _softsign,
    "Pow": _pow,
    "Tanh": _function("tanh"),
    "Softplus": _function("softplus"),
    **{name: _function(name.lower()) for name in ("Erf", "Sin", "Cos", "Floor", "Ceil", "Round")},
}
