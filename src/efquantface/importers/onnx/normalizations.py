"""ONNX normalizations: BatchNorm (an affine), and those by a crop's own mean and variance (islands)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from efquantface.graph import ops
from efquantface.importers.onnx.arithmetic import (
    affine,
    combined,
    function,
    scaled,
    with_scale,
    with_shift,
)
from efquantface.importers.onnx.context import Handler, NotCanonical, Operands
from efquantface.importers.onnx.patterns import LAYER_NORM


def _batch_norm(op: Operands) -> str:
    scale, bias, mean, variance = (op.tensor(i) for i in range(1, 5))
    factor = scale / torch.sqrt(variance + float(op.attrs.get("epsilon", 1e-5)))
    return affine(op, op.activation(), factor, bias - mean * factor)


def _standardized(op: Operands, source: str, groups: int, eps: float) -> str:
    """Each of ``groups`` equal parts of a crop's values, with mean 0 and variance 1."""
    shape = op.size(source)[1:]
    count = int(np.prod(shape))
    if count % groups:
        raise NotCanonical(f"{groups} groups of {shape}")
    rows = op.add(ops.Reshape([groups, count // groups]), source, suffix="_groups")
    return op.add(ops.Reshape(shape), op.add(ops.Standardize(groups, eps), rows))


def _weighted(op: Operands, source: str, weight: Tensor, bias: Tensor) -> str:
    """A factor and an offset in float, unless they are 1 and 0."""
    if bool((weight != 1).any()):
        source = with_scale(op, source, weight)
    return with_shift(op, source, bias) if bool((bias != 0).any()) else source


def _channels(value: Tensor, rank: int) -> Tensor:
    return value.reshape(-1, *(1,) * (rank - 2))


def _instance_norm(op: Operands) -> str:
    shape = op.shape()
    eps = float(op.attrs.get("epsilon", 1e-5))
    found = _standardized(op, op.activation(), shape[1], eps)
    return _weighted(op, found, *(_channels(op.tensor(i), len(shape)) for i in (1, 2)))


def _group_norm(op: Operands) -> str:
    """A GroupNorm. Weights are per group up to opset 20, per channel from 21 on."""
    shape, groups = op.shape(), int(op.attrs["num_groups"])
    found = _standardized(op, op.activation(), groups, float(op.attrs.get("epsilon", 1e-5)))
    weight, bias = (
        _channels(v.repeat_interleave(shape[1] // len(v)), len(shape))
        for v in (op.tensor(1), op.tensor(2))
    )
    return _weighted(op, found, weight, bias)


def _one_axis_norm(op: Operands) -> str:
    """A norm over one axis (the last, or channels), without weights."""
    shape, source = op.shape(), op.activation()
    axis = int(op.attrs["axis"]) % len(shape)
    if axis == 0:
        raise NotCanonical("a norm over the batch")
    norm = ops.LayerNorm(shape[axis], float(op.attrs["epsilon"]))
    if axis == len(shape) - 1:
        return op.add(norm, source)
    order = [a for a in range(len(shape)) if a != axis]
    turned = op.add(ops.Transpose([*order, axis]), source, suffix="_last")
    back = [a if a < axis else a - 1 for a in range(len(shape))]
    back[axis] = len(shape) - 1
    return op.add(ops.Transpose(back), op.add(norm, turned))


@torch.no_grad()
def _layer_norm(op: Operands) -> str:
    shape = op.shape()
    axis = int(op.attrs.get("axis", -1)) % len(shape)
    if axis == 0:
        raise NotCanonical("a norm over the batch")
    source, features = op.activation(), int(np.prod(shape[axis:]))
    norm = ops.LayerNorm(features, float(op.attrs.get("epsilon", 1e-5)))
    if op.has(1):
        norm.weight.copy_(op.tensor(1).expand(shape[axis:]).flatten())
    if op.has(2):
        norm.bias.copy_(op.tensor(2).expand(shape[axis:]).flatten())
    if axis == len(shape) - 1:
        return op.add(norm, source)
    flat = op.add(ops.Reshape([*shape[1:axis], features]), source, suffix="_flat")
    return op.add(ops.Reshape(shape[1:]), op.add(norm, flat))


def _rms_norm(op: Operands) -> str:
    source, shape = op.activation(), op.shape()
    first = int(op.attrs.get("axis", -1)) % len(shape)
    mean = ops.Reduce("mean", range(first, len(shape)), True)
    means = op.add(mean, function(op, "pow", source, 2.0))
    root = function(op, "pow", scaled(op, means, 1.0, float(op.attrs.get("epsilon", 1e-5))), -0.5)
    return with_scale(op, combined(op, "Mul", source, root), op.tensor(1))


NORMALIZATION_HANDLERS: dict[str, Handler] = {
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    LAYER_NORM: _one_axis_norm,
    "RMSNormalization": _rms_norm,
}
