"""ONNX operators of transformer-like backbones, most of which compute in float: islands."""

from __future__ import annotations

import numpy as np
import torch

from efquantface.graph import ops
from efquantface.importers.onnx.context import Handler, NotCanonical, Operands
from efquantface.importers.onnx.patterns import GELU, LAYER_NORM


def stays_in_float(op: Operands, source: str) -> bool:
    """Whether a constant factor or offset of ``source`` is a Scale or Shift, not an Affine."""
    rank = op.context.examples[source].dim()
    module = op.context.builder.module(source)
    return rank not in (2, 4) or ops.is_island(module)


def constant_operand(op: Operands, kind: str, index: int, source: str) -> str:
    """Add, Sub, Mul or Div of an activation and a constant of any shape that spreads over it."""
    value = op.tensor(index)
    shape = op.context.examples[source].shape
    while value.dim() > 1 and value.shape[0] == 1:  # the batch and missing axes need no entry
        value = value[0]
    try:
        spread = np.broadcast_shapes(tuple(value.shape), tuple(shape[1:]))
    except ValueError:
        raise NotCanonical(f"a constant of shape {tuple(value.shape)} for {tuple(shape)}") from None
    if tuple(spread) != tuple(shape[1:]):
        raise NotCanonical(f"a constant of shape {tuple(value.shape)} spreads {tuple(shape)}")
    if kind in ("Sub", "Div") and index == 0:
        raise NotCanonical(f"{kind} of a constant and an activation")
    if kind in ("Add", "Sub"):
        shift = ops.Shift(value.shape)
        with torch.no_grad():
            shift.bias.copy_(value if kind == "Add" else -value)
        return op.add(shift, source)
    scale = ops.Scale(value.shape)
    with torch.no_grad():
        scale.weight.copy_(value if kind == "Mul" else 1 / value)
    return op.add(scale, source)


def two_activations(op: Operands, kind: str) -> str:
    """A product of two activations, one of which may be spread over height and width."""
    if kind != "Mul":
        raise NotCanonical("two activations")
    first, second = op.activation(0), op.activation(1)
    a, b = op.shape(0), op.shape(1)
    spread = tuple(max(sizes) for sizes in zip(a, b, strict=False))
    if len(a) != len(b) or spread not in (a, b):
        raise NotCanonical(f"shapes {a} and {b}")
    if a != spread:
        first, second = second, first
    return op.add(ops.Multiply(), first, second)


def _matmul(op: Operands) -> str:
    """A product with a constant matrix is a linear layer over the last axis."""
    if not op.is_constant(1):
        return op.add(ops.MatMul(), op.activation(0), op.activation(1))
    weight = op.tensor(1)
    if weight.dim() != 2:
        raise NotCanonical(f"a product with a constant of shape {tuple(weight.shape)}")
    return op.add(ops.linear_from(weight.T, None), op.activation())


def _layer_norm(op: Operands) -> str:
    shape = op.shape()
    if op.attrs.get("axis", -1) not in (-1, len(shape) - 1):
        raise NotCanonical(f"axis {op.attrs['axis']}")
    norm = ops.LayerNorm(shape[-1], float(op.attrs.get("epsilon", 1e-5)))
    with torch.no_grad():
        if op.has(1):
            norm.weight.copy_(op.tensor(1))
        if op.has(2):
            norm.bias.copy_(op.tensor(2))
    return op.add(norm, op.activation())


def _gelu(op: Operands) -> str:
    if op.attrs.get("approximate", b"none") != b"none":
        raise NotCanonical("an approximated GELU")
    return op.add(ops.Gelu(), op.activation())


def _softmax(op: Operands) -> str:
    default = -1 if op.opset >= 13 else 1
    if op.attrs.get("axis", default) not in (-1, len(op.shape()) - 1):
        raise NotCanonical(f"axis {op.attrs.get('axis', default)}")
    return op.add(ops.Softmax(), op.activation())


def _sigmoid(op: Operands) -> str:
    return op.add(ops.Sigmoid(), op.activation())


TRANSFORMER_HANDLERS: dict[str, Handler] = {
    "MatMul": _matmul,
    "LayerNormalization": _layer_norm,
    LAYER_NORM: _layer_norm,
    "Gelu": _gelu,
    GELU: _gelu,
    "Softmax": _softmax,
    "Sigmoid": _sigmoid,
}
