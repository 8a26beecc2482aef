"""From ONNX operators to canonical operators: one handler per type, in the module of its kind."""

from __future__ import annotations

from onnx import TensorProto

from efquantface.graph import ops
from efquantface.importers.onnx.activations import ACTIVATION_HANDLERS
from efquantface.importers.onnx.anywhere import anywhere
from efquantface.importers.onnx.arithmetic import ARITHMETIC_HANDLERS, function
from efquantface.importers.onnx.axes import AXIS_HANDLERS, flat
from efquantface.importers.onnx.comparisons import COMPARISON_HANDLERS
from efquantface.importers.onnx.context import Handler, NotCanonical, Operands
from efquantface.importers.onnx.einsum import EINSUM_HANDLERS
from efquantface.importers.onnx.normalizations import NORMALIZATION_HANDLERS
from efquantface.importers.onnx.norms import NORM_HANDLERS
from efquantface.importers.onnx.pooling import POOLING_HANDLERS, window_pads, zeros_around
from efquantface.importers.onnx.resampling import RESAMPLING_HANDLERS
from efquantface.importers.onnx.transformers import TRANSFORMER_HANDLERS

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def _conv(op: Operands) -> str:
    weight, source = op.tensor(1), op.activation()
    bias = op.tensor(2) if op.has(2) else None
    if weight.dim() == 3:
        return _line_conv(op)
    if weight.dim() != 4:
        raise NotCanonical("only one- and two-dimensional convolutions are supported")
    pads = window_pads(op, source, list(weight.shape[2:]))
    if pads[:2] != pads[2:]:
        source, pads = zeros_around(op, source, pads), [0] * 4
    conv = ops.conv_from(
        weight,
        bias,
        stride=tuple(op.attrs.get("strides", (1, 1))),
        padding=(pads[0], pads[1]),
        dilation=tuple(op.attrs.get("dilations", (1, 1))),
        groups=int(op.attrs.get("group", 1)),
    )
    return op.add(conv, source)


def _line_conv(op: Operands) -> str:
    """A convolution of (N,C,L), as one of (N,C,1,L)."""
    weight, (_, channels, length) = op.tensor(1), op.shape()
    if op.attrs.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise NotCanonical("a one-dimensional convolution whose padding is not given")
    before, after = op.attrs.get("pads", (0, 0))
    source = op.add(ops.Reshape([channels, 1, length]), op.activation(), suffix="_map")
    if before != after:
        source, before = zeros_around(op, source, [0, before, 0, after]), 0
    conv = ops.conv_from(
        weight[:, :, None],
        op.tensor(2) if op.has(2) else None,
        stride=(1, *op.attrs.get("strides", (1,))),
        padding=(0, before),
        dilation=(1, *op.attrs.get("dilations", (1,))),
        groups=int(op.attrs.get("group", 1)),
    )
    found = op.add(conv, source)
    return op.add(ops.Reshape([len(weight), op.size(found)[-1]]), found, suffix="_line")


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


def _flatten(op: Operands) -> str:
    if op.attrs.get("axis", 1) not in (1, 1 - len(op.shape())):
        raise NotCanonical(f"axis {op.attrs['axis']}")
    return flat(op)


def _same(op: Operands) -> str:
    return op.activation()


def _cast(op: Operands) -> str:
    """A cast between float types. All values here are float32, truth values 1 or 0."""
    if op.attrs["to"] == TensorProto.BOOL:
        return function(op, "abs", function(op, "sign", op.activation()))
    if op.attrs["to"] not in _FLOATS:
        raise NotCanonical("a cast to a type that is not floating point")
    return op.activation()


_ALL: dict[str, Handler] = {
    **AXIS_HANDLERS,
    **ACTIVATION_HANDLERS,
    **ARITHMETIC_HANDLERS,
    **COMPARISON_HANDLERS,
    **EINSUM_HANDLERS,
    **NORMALIZATION_HANDLERS,
    **NORM_HANDLERS,
    **POOLING_HANDLERS,
    **RESAMPLING_HANDLERS,
    **TRANSFORMER_HANDLERS,
    "Conv": _conv,
    "Gemm": _gemm,
    "Flatten": _flatten,
    "Identity": _same,
    "Dropout": _same,
    "Cast": _cast,
}

HANDLERS: dict[str, Handler] = {kind: anywhere(kind, handler) for kind, handler in _ALL.items()}
