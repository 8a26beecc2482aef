"""How the ONNX operators of convolutional networks become canonical operators: one handler a type."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from efquantface.graph import ops
from efquantface.importers.onnx.axes import AXIS_HANDLERS
from efquantface.importers.onnx.context import Handler, NotCanonical, Operands
from efquantface.importers.onnx.norms import NORM_HANDLERS
from efquantface.importers.onnx.transformers import (
    TRANSFORMER_HANDLERS,
    constant_operand,
    stays_in_float,
    two_activations,
)

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def _pads(op: Operands, source: str, kernel: list[int]) -> tuple[tuple[int, int], str]:
    """Symmetric padding for the module; asymmetric padding becomes a ZeroPad in front."""
    auto = op.attrs.get("auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        stride = op.attrs.get("strides", [1, 1])
        total = [
            max((-(-size // s) - 1) * s + k - size, 0)
            for size, s, k in zip(op.shape()[2:], stride, kernel, strict=True)
        ]
        small = [t // 2 for t in total]
        large = [t - t // 2 for t in total]
        begin, end = (small, large) if auto == b"SAME_UPPER" else (large, small)
        pads = [*begin, *end]
    else:
        pads = list(op.attrs.get("pads", [0, 0, 0, 0]))
    if len(pads) != 4:
        raise NotCanonical("only two-dimensional convolutions and pools are supported")
    if pads[:2] == pads[2:]:
        return (pads[0], pads[1]), source
    pad = ops.ZeroPad(0, top=pads[0], bottom=pads[2], left=pads[1], right=pads[3])
    return (0, 0), op.add(pad, source, suffix="_pad")


def _conv(op: Operands) -> str:
    weight = op.tensor(1)
    if weight.dim() != 4:
        raise NotCanonical("only two-dimensional convolutions are supported")
    bias = op.tensor(2) if op.has(2) else None
    padding, source = _pads(op, op.activation(), list(weight.shape[2:]))
    conv = ops.conv_from(
        weight,
        bias,
        stride=tuple(op.attrs.get("strides", (1, 1))),
        padding=padding,
        dilation=tuple(op.attrs.get("dilations", (1, 1))),
        groups=int(op.attrs.get("group", 1)),
    )
    return op.add(conv, source)


def _gemm(op: Operands) -> str:
    if op.attrs.get("transA", 0):
        raise NotCanonical("transA")
    weight = op.tensor(1) * float(op.attrs.get("alpha", 1.0))
    if not op.attrs.get("transB", 0):
        weight = weight.T
    bias = None
    if op.has(2):
        bias = (op.tensor(2) * float(op.attrs.get("beta", 1.0))).flatten().expand(weight.shape[0])
    return op.add(ops.linear_from(weight, bias), op.activation())


def _batch_norm(op: Operands) -> str:
    scale, bias, mean, variance = (op.tensor(i) for i in range(1, 5))
    factor = scale / torch.sqrt(variance + float(op.attrs.get("epsilon", 1e-5)))
    return _affine(op, op.activation(), factor, bias - mean * factor)


def _affine(op: Operands, source: str, weight: Tensor, bias: Tensor) -> str:
    """Per-channel scale and shift; scalars are spread over the channels."""
    channels = op.context.examples[source].shape[1]
    module = ops.Affine(channels)
    try:
        with torch.no_grad():
            module.weight.copy_(weight.expand(channels))
            module.bias.copy_(bias.expand(channels))
    except RuntimeError:
        raise NotCanonical(f"a constant of {weight.numel()} values, {channels} channels") from None
    return op.add(module, source)


def _per_channel(op: Operands, index: int, rank: int) -> Tensor:
    """A constant that varies along the channel axis only, as a vector or one value."""
    value = op.tensor(index)
    if value.numel() == 1:
        return value.flatten()
    full = value.reshape((1,) * (rank - value.dim()) + tuple(value.shape))
    if full.dim() != rank or full.numel() != full.shape[1]:
        raise NotCanonical(f"a constant of shape {tuple(value.shape)} that is not per channel")
    return full.flatten()


def _is_per_channel(op: Operands, index: int, source: str) -> bool:
    try:
        _per_channel(op, index, op.context.examples[source].dim())
    except NotCanonical:
        return False
    return True


def _elementwise(kind: str) -> Callable[[Operands], str]:
    def handler(op: Operands) -> str:
        constant = next((i for i in (0, 1) if op.is_constant(i)), None)
        if constant is None:
            if kind != "Add":
                return two_activations(op, kind)
            first, second = op.activation(0), op.activation(1)
            if op.shape(0) != op.shape(1):
                raise NotCanonical(f"shapes {op.shape(0)} and {op.shape(1)} differ")
            return op.add(ops.Add(), first, second)
        source = op.activation(1 - constant)
        if stays_in_float(op, source) or not _is_per_channel(op, constant, source):
            return constant_operand(op, kind, constant, source)
        c = _per_channel(op, constant, op.context.examples[source].dim())
        one, zero = torch.ones(1), torch.zeros(1)
        if kind == "Add":
            return _affine(op, source, one, c)
        if kind == "Sub":
            return _affine(op, source, -one, c) if constant == 0 else _affine(op, source, one, -c)
        if kind == "Mul":
            return _affine(op, source, c, zero)
        if constant == 0:
            raise NotCanonical("a constant divided by an activation")
        return _affine(op, source, 1 / c, zero)

    return handler


def _prelu(op: Operands) -> str:
    slope = _per_channel_slope(op)
    channels = op.shape()[1]
    module = ops.PReLU(channels)
    with torch.no_grad():
        module.slope.copy_(slope.expand(channels))
    return op.add(module, op.activation())


def _per_channel_slope(op: Operands) -> Tensor:
    """PRelu slopes come as [C,1,1], [1,C,1,1], [1], and, from MXNet exports, as plain [C]."""
    slope = op.tensor(1)
    if slope.numel() not in (1, op.shape()[1]):
        raise NotCanonical(f"slopes of shape {tuple(slope.shape)} for {op.shape()[1]} channels")
    if slope.dim() > 1 and slope.numel() > 1:
        return _per_channel(op, 1, len(op.shape()))
    return slope.flatten()


def _leaky_relu(op: Operands) -> str:
    module = ops.PReLU(op.shape()[1])
    with torch.no_grad():
        module.slope.fill_(float(op.attrs.get("alpha", 0.01)))
    return op.add(module, op.activation())


def _clip(op: Operands) -> str:
    if op.opset < 11:
        low, high = op.attrs.get("min"), op.attrs.get("max")
    else:
        low = op.constant(1).item() if op.has(1) else None
        high = op.constant(2).item() if op.has(2) else None
    low = None if low is None or low < -1e30 else float(low)
    high = None if high is None or high > 1e30 else float(high)
    return op.add(ops.Clamp(low, high), op.activation())


def _relu(op: Operands) -> str:
    return op.add(ops.Clamp(0.0, None), op.activation())


def _pool(op: Operands) -> str:
    kernel = list(op.attrs["kernel_shape"])
    ceil = bool(op.attrs.get("ceil_mode", 0))
    strides = tuple(op.attrs.get("strides", (1, 1)))
    if any(d != 1 for d in op.attrs.get("dilations", [1, 1])):
        raise NotCanonical("dilated pooling")
    is_max = op.node.op_type == "MaxPool"
    pads = list(op.attrs.get("pads", [0, 0, 0, 0]))
    if pads[:2] != pads[2:] or op.attrs.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise NotCanonical("asymmetric pooling pads")
    padding = (pads[0], pads[1])
    if is_max:
        return op.add(
            ops.MaxPool2d((kernel[0], kernel[1]), strides, padding, ceil_mode=ceil), op.activation()
        )
    include = bool(op.attrs.get("count_include_pad", 0))
    if kernel == list(op.shape()[2:]) and padding == (0, 0):
        return op.add(ops.GlobalAvgPool(), op.activation())
    pool = ops.AvgPool2d((kernel[0], kernel[1]), strides, padding, ceil, include)
    return op.add(pool, op.activation())


def _global_average(op: Operands) -> str:
    return op.add(ops.GlobalAvgPool(), op.activation())


def _reduce_mean(op: Operands) -> str:
    axes = op.attrs.get("axes")
    if axes is None and op.has(1):
        axes = op.constant(1).tolist()
    rank = len(op.shape())
    if rank != 4 or sorted(a % rank for a in axes or []) != [2, 3]:
        raise NotCanonical(f"a mean over axes {axes}")
    pooled = op.add(ops.GlobalAvgPool(), op.activation())
    if op.attrs.get("keepdims", 1):
        return pooled
    return op.add(ops.Flatten(), pooled, suffix="_flatten")


def _flatten(op: Operands) -> str:
    if op.attrs.get("axis", 1) not in (1, 1 - len(op.shape())):
        raise NotCanonical(f"axis {op.attrs['axis']}")
    return _flat(op)


def _flat(op: Operands) -> str:
    return op.activation() if len(op.shape()) == 2 else op.add(ops.Flatten(), op.activation())


def _reshape(op: Operands) -> str:
    """Reshape to (N, ...), whatever batch was baked into it."""
    target = op.constant(1).tolist() if op.has(1) else list(op.attrs.get("shape", []))
    features = int(np.prod(op.shape()[1:]))
    if len(target) == 2 and target[1] in (-1, features):
        return _flat(op)
    sizes = [op.shape()[i] if size == 0 else int(size) for i, size in enumerate(target)]
    rest = sizes[1:]
    if rest.count(-1) == 1 and sizes[0] in (1, op.shape()[0]):
        rest[rest.index(-1)] = features // max(-int(np.prod(rest)), 1)
    if -1 in rest or int(np.prod(rest)) != features:
        raise NotCanonical(f"a reshape of {op.shape()} to {target}")
    return (
        op.activation()
        if rest == list(op.shape()[1:])
        else op.add(ops.Reshape(rest), op.activation())
    )


def _pad(op: Operands) -> str:
    if op.attrs.get("mode", b"constant") != b"constant":
        raise NotCanonical("padding that is not constant")
    if op.opset < 11:
        pads, value = list(op.attrs["pads"]), float(op.attrs.get("value", 0.0))
    else:
        pads, value = _pads_by_axis(op), float(op.constant(2, np.zeros(1)).item())
    if value != 0 or len(pads) != 8 or any(p < 0 for p in pads) or pads[0] or pads[4] or pads[1]:
        raise NotCanonical(f"pads {pads} with value {value}")
    module = ops.ZeroPad(pads[5], top=pads[2], bottom=pads[6], left=pads[3], right=pads[7])
    return op.add(module, op.activation())


def _pads_by_axis(op: Operands) -> list[int]:
    """Begins of all axes, then their ends; from opset 18 the file may name some axes, in any order."""
    given, rank = op.constant(1).reshape(-1).tolist(), len(op.shape())
    axes = op.constant(3, np.arange(rank)).reshape(-1).tolist()
    if len(given) != 2 * len(axes):
        raise NotCanonical(f"pads {given} for axes {axes}")
    pads = [0] * (2 * rank)
    for index, axis in enumerate(axes):
        pads[axis % rank] = given[index]
        pads[axis % rank + rank] = given[index + len(axes)]
    return pads


def _same(op: Operands) -> str:
    return op.activation()


def _cast(op: Operands) -> str:
    """Between float types: everything here is float32."""
    if op.attrs["to"] not in _FLOATS:
        raise NotCanonical("a cast to a type that is not floating point")
    return op.activation()


HANDLERS: dict[str, Handler] = {
    **AXIS_HANDLERS,
    **TRANSFORMER_HANDLERS,
    **NORM_HANDLERS,
    "Conv": _conv,
    "Gemm": _gemm,
    "BatchNormalization": _batch_norm,
    "Add": _elementwise("Add"),
    "Sub": _elementwise("Sub"),
    "Mul": _elementwise("Mul"),
    "Div": _elementwise("Div"),
    "PRelu": _prelu,
    "LeakyRelu": _leaky_relu,
    "Clip": _clip,
    "Relu": _relu,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global_average,
    "ReduceMean": _reduce_mean,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Pad": _pad,
    "Identity": _same,
    "Dropout": _same,
    "Cast": _cast,
}
