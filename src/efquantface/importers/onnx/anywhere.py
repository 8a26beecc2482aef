"""Operators that work wherever the batch is, for values whose batch is not in front."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from efquantface.importers.onnx.activations import ACTIVATION_HANDLERS
from efquantface.importers.onnx.arithmetic import ARITHMETIC_HANDLERS
from efquantface.importers.onnx.context import Array, Handler, NotCanonical, Operands
from efquantface.importers.onnx.norms import NORM_HANDLERS
from efquantface.importers.onnx.patterns import LAYER_NORM
from efquantface.importers.onnx.places import Place
from efquantface.importers.onnx.pooling import REDUCTION_HANDLERS

_SPREAD = {*ARITHMETIC_HANDLERS}  # their constants are broadcast over the file's axes
_VALUES = ({*ACTIVATION_HANDLERS} - {"PRelu"}) | {"Identity", "Dropout", "Cast"}
_LAST = {"MatMul", "Gemm", "Softmax", "LayerNormalization", LAYER_NORM, "Concat"}  # along an axis


def anywhere(kind: str, handler: Handler) -> Handler:
    """A handler that also reads values whose batch is not in front, where the operator allows it.

    Args:
        kind: type of the ONNX operator.
        handler: reads axes as the graph numbers them.
    """
    if kind not in _SPREAD | _VALUES | _LAST | {*REDUCTION_HANDLERS, *NORM_HANDLERS}:
        return handler

    def handle(op: Operands) -> str | list[str]:
        context = op.context
        if not any(name in context.moved for name in op.node.input):
            return handler(op)
        places = {context.place(name) for name in op.node.input if name in context.names}
        if len(places) != 1:
            raise NotCanonical("reads values whose batches stand at different axes")
        place = places.pop()
        rank = max(len(context.file_shape(name)) for name in op.node.input if name in context.names)
        attrs, after = _attributes(op, kind, place, rank)
        constants = dict(context.constants)
        if kind in _SPREAD:
            for name in op.node.input:
                if name in constants:
                    constants[name] = _turned(constants[name], place, rank)
        inner = replace(context, constants=constants, moved={})
        context.put(op.node.output[0], after)
        return handler(replace(op, context=inner, attrs=attrs))

    return handle


def _attributes(
    op: Operands, kind: str, place: Place, rank: int
) -> tuple[dict[str, object], Place]:
    """The attributes with axes as the graph numbers them, and the place of the batch in the result."""
    attrs, after = dict(op.attrs), place
    if kind in REDUCTION_HANDLERS:
        axes = [axis % rank for axis in op.axes() or range(rank)]
        attrs["axes"] = [_own(axis, place) for axis in axes]
        if not op.attrs.get("keepdims", 1):
            after = place.without(axes)
    elif kind in NORM_HANDLERS:
        if "axes" in attrs:
            attrs["axes"] = [_own(axis % rank, place) for axis in op.axes() or []]
        else:
            attrs["axis"] = _own(int(op.attrs.get("axis", -1)) % rank, place)
    elif kind in _LAST:
        default = 1 if kind == "Softmax" and op.opset < 13 else -1
        axis = int(op.attrs.get("axis", default)) % rank
        own = _own(axis, place)
        if "axis" in op.attrs:
            attrs["axis"] = own
        if kind == "MatMul" and place.axis >= rank - (1 if op.is_constant(1) else 2):
            raise NotCanonical("works across the batch")
    return attrs, after


def _own(axis: int, place: Place) -> int:
    own = place.own(axis)
    if own is None or axis == place.axis:
        raise NotCanonical("works across the batch")
    return own


def _turned(value: Array, place: Place, rank: int) -> Array:
    """From a constant that is broadcast over the file's axes to one for the graph's axes."""
    if value.size == 1:
        return value
    full = value.reshape((1,) * (rank - value.ndim) + value.shape)
    if place.axis < 0:
        return full[None]
    if full.shape[place.axis] != 1:
        raise NotCanonical(f"a constant of shape {value.shape} that differs along the batch")
    first = np.moveaxis(full, place.axis, 0)
    return np.expand_dims(first, place.axis + 1) if place.beside > 1 else first
