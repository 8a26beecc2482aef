"""ONNX operators of transformer-like backbones, most of which compute in float: islands."""

from __future__ import annotations

from efquantface.graph import ops
from efquantface.importers.onnx.context import Handler, NotCanonical, Operands


def _matmul(op: Operands) -> str:
    """A product with a constant matrix is a linear layer over the last axis."""
    if not op.is_constant(1):
        return op.add(ops.MatMul(), op.activation(0), op.activation(1))
    weight = op.tensor(1)
    if weight.dim() != 2:
        raise NotCanonical(f"a product with a constant of shape {tuple(weight.shape)}")
    return op.add(ops.linear_from(weight.T, None), op.activation())


def _softmax(op: Operands) -> str:
    """Over one axis; up to opset 12 over all axes from the given one on."""
    source, shape = op.activation(), op.shape()
    axis = int(op.attrs.get("axis", -1 if op.opset >= 13 else 1)) % len(shape)
    if axis == 0:
        raise NotCanonical("a softmax over the batch")
    if axis == len(shape) - 1:
        return op.add(ops.Softmax(), source)
    if op.opset < 13:
        flat = op.add(ops.Reshape([*shape[1:axis], -1]), source, suffix="_flat")
        return op.add(ops.Reshape(shape[1:]), op.add(ops.Softmax(), flat))
    order = list(range(len(shape)))
    order[axis], order[-1] = order[-1], order[axis]
    turned = op.add(ops.Transpose(order), source, suffix="_turned")
    return op.add(ops.Transpose(order), op.add(ops.Softmax(), turned))


TRANSFORMER_HANDLERS: dict[str, Handler] = {
    "MatMul": _matmul,
    "Softmax": _softmax,
}
