"""ONNX operators of transformer-like backbones. Most stay in float (islands)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from efquantface.graph import ops
from efquantface.importers.onnx.arithmetic import for_one, scaled, with_scale, with_shift
from efquantface.importers.onnx.axes import take
from efquantface.importers.onnx.context import Handler, NotCanonical, Operands

_NEVER = -1e4  # added to scores that a mask excludes


def _matmul(op: Operands) -> str:
    """A matrix product. With a constant matrix it is a linear layer over the last axis."""
    if op.is_constant(0):
        return _of_constant(op)
    if not op.is_constant(1):
        return op.add(ops.MatMul(), op.activation(0), op.activation(1))
    weight = op.tensor(1)
    if weight.dim() != 2:
        raise NotCanonical(f"a product with a constant of shape {tuple(weight.shape)}")
    return op.add(ops.linear_from(weight.T, None), op.activation())


def _of_constant(op: Operands) -> str:
    """A constant (trained queries) times a value. The constant becomes a value: zeros and a shift."""
    source, value = op.activation(1), op.tensor(0)
    rank = len(op.size(source))
    value = for_one(value, rank)
    if value.dim() < 2 or (value.dim() == rank and len(value) > 1):
        raise NotCanonical(f"a constant of shape {tuple(value.shape)} times a value")
    own = value[0] if value.dim() == rank else value
    own = own.reshape((1,) * (rank - 1 - own.dim()) + tuple(own.shape))
    nothing = op.add(ops.Reduce("sum", range(1, rank), True), source, suffix="_sum")
    nothing = with_scale(op, nothing, torch.zeros(1))
    return op.add(ops.MatMul(), with_shift(op, nothing, own), source)


def _softmax(op: Operands) -> str:
    """A softmax over one axis; up to opset 12 over all axes from the given one on."""
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


def _attention(op: Operands) -> str:
    """``softmax(scale q k^T + mask) v`` of (N,heads,T,D), or of (N,T,heads*D) with attributes."""
    if op.attrs.get("softcap", 0.0) or len(op.node.output) > 1 or op.has(4) or op.has(5):
        raise NotCanonical("attention with a cap, a past or several results")
    lines = len(op.shape()) == 3
    heads = [int(op.attrs.get(f"{which}_num_heads", 0)) for which in ("q", "kv", "kv")]
    q, k, v = (_heads(op, i, count) if lines else op.activation(i) for i, count in enumerate(heads))
    queries, keys = op.size(q), op.size(k)
    if keys[1] != queries[1]:  # several heads read the same keys
        each = [i // (queries[1] // keys[1]) for i in range(queries[1])]
        k, v = (take(op, x, 1, each) for x in (k, v))
    turned = op.add(ops.Transpose((0, 1, 3, 2)), k, suffix="_turned")
    scale = float(op.attrs.get("scale", queries[-1] ** -0.5))
    found = scaled(op, op.add(ops.MatMul(), q, turned, suffix="_product"), scale)
    mask = _mask(op, queries[2], keys[2])
    if mask is not None:
        found = with_shift(op, found, mask)
    found = op.add(ops.MatMul(), op.add(ops.Softmax(), found, suffix="_shares"), v)
    if not lines:
        return found
    joined = op.add(ops.Transpose((0, 2, 1, 3)), found)
    return op.add(ops.Reshape([queries[2], queries[1] * op.size(v)[3]]), joined)


def _heads(op: Operands, index: int, count: int) -> str:
    _, tokens, width = op.shape(index)
    if not count or width % count:
        raise NotCanonical(f"{count} heads of {width} values")
    parts = op.add(ops.Reshape([tokens, count, width // count]), op.activation(index))
    return op.add(ops.Transpose((0, 2, 1, 3)), parts)


def _mask(op: Operands, queries: int, keys: int) -> Tensor | None:
    """The tensor that is added to the products of queries and keys; None without a mask."""
    mask = None
    if op.has(3):
        given = op.constant(3)
        mask = torch.from_numpy(np.array(given))
        if given.dtype == np.bool_:
            mask = torch.zeros(given.shape).masked_fill(~mask, _NEVER)
        while mask.dim() > 2 and mask.shape[0] == 1:
            mask = mask[0]
    if op.attrs.get("is_causal", 0):
        later = torch.ones(queries, keys).triu(1).bool()
        causal = torch.zeros(queries, keys).masked_fill(later, _NEVER)
        mask = causal if mask is None else mask + causal
    return mask


TRANSFORMER_HANDLERS: dict[str, Handler] = {
    "Attention": _attention,
    "MatMul": _matmul,
    "Softmax": _softmax,
}
