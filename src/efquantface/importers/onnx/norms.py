"""L2 norms: the ways in which exporters write ``x / ||x||``, and the operator that they become.

The length is ReduceL2, or the root (Sqrt, or a power of one half) of a sum of squares (ReduceSumSquare,
or ReduceSum of ``x * x`` or ``x ** 2``). It may have a lower limit or a small number added. It may lose
its axis and get it back (Unsqueeze, Reshape, Expand). ``x`` is divided by it, or multiplied by its
reciprocal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper

from efquantface.graph import ops
from efquantface.importers.onnx.context import Handler, NotCanonical, Operands

L2_NORM = "efq.L2Normalize"
_SAME = ("Identity", "Cast", "Expand", "Unsqueeze", "Squeeze", "Reshape", "Abs", "Dropout")
_SMALL = 1e-5  # compared with an embedding's length, or with its square


class Nodes(Protocol):
    """A graph's nodes, for patterns."""

    @property
    def constants(self) -> Mapping[str, npt.NDArray[Any]]:
        """Constants by name."""
        ...

    def made_by(self, name: str, *types: str) -> NodeProto | None:
        """The node of one of these types that gives ``name``; None where there is none."""
        ...

    def scalar(self, name: str) -> float | None:
        """The value of a constant of one element; None for anything else."""
        ...


@dataclass(frozen=True)
class _Length:
    """``max(||x||, least)`` over ``axes``; all axes where None."""

    x: str
    axes: tuple[int, ...] | None
    least: float = 0.0


def l2_norm(graph: Nodes, node: NodeProto) -> NodeProto | None:
    """The one node that replaces ``node`` if it divides a value by its own length; None otherwise."""
    for x, length in _divided(graph, node):
        if length is not None and length.x == _origin(graph, x):
            axes = None if length.axes is None else list(length.axes)
            return helper.make_node(
                L2_NORM, [x], [node.output[0]], name=node.name, eps=length.least, axes=axes
            )
    return None


def _divided(graph: Nodes, node: NodeProto) -> list[tuple[str, _Length | None]]:
    """Values that ``node`` may divide, each with the length that it divides by."""
    if node.op_type == "Div":
        return [(node.input[0], _length(graph, node.input[1]))]
    if node.op_type != "Mul":
        return []
    found = []
    for x, factor in (tuple(node.input), tuple(node.input)[::-1]):
        inverse = graph.made_by(_kept(graph, factor), "Reciprocal", "Div", "Pow")
        if inverse is None:
            continue
        if inverse.op_type == "Reciprocal":
            found.append((x, _length(graph, inverse.input[0])))
        elif inverse.op_type == "Div" and graph.scalar(inverse.input[0]) == 1:
            found.append((x, _length(graph, inverse.input[1])))
        elif inverse.op_type == "Pow" and graph.scalar(inverse.input[1]) == -0.5:
            found.append((x, _root(_square(graph, inverse.input[0]))))
    return found


def _kept(graph: Nodes, name: str) -> str:
    """The value behind nodes that do not change a length."""
    while (node := graph.made_by(name, *_SAME)) is not None:
        name = node.input[0]
    return name


def _origin(graph: Nodes, name: str) -> str:
    """The value behind casts and absolute values."""
    while (node := graph.made_by(name, "Identity", "Cast", "Abs")) is not None:
        name = node.input[0]
    return name


def _length(graph: Nodes, name: str) -> _Length | None:
    name = _kept(graph, name)
    limited = _limited(graph, name)
    if limited is not None:
        return _at_least(_length(graph, limited[0]), limited[1])
    node = graph.made_by(name, "ReduceL2", "Sqrt", "Pow")
    if node is None:
        return None
    if node.op_type == "ReduceL2":
        return _Length(_origin(graph, node.input[0]), _axes(graph, node))
    if node.op_type == "Pow" and graph.scalar(node.input[1]) != 0.5:
        return None
    return _root(_square(graph, node.input[0]))


def _square(graph: Nodes, name: str) -> _Length | None:
    """A sum of squares. Its ``least`` is that of the square."""
    name = _kept(graph, name)
    limited = _limited(graph, name)
    if limited is not None:
        return _at_least(_square(graph, limited[0]), limited[1])
    node = graph.made_by(name, "ReduceSumSquare", "ReduceSum")
    if node is None:
        return None
    if node.op_type == "ReduceSumSquare":
        return _Length(_origin(graph, node.input[0]), _axes(graph, node))
    squared = graph.made_by(node.input[0], "Mul", "Pow")
    if squared is None:
        return None
    x, other = (_origin(graph, name) for name in squared.input)
    is_square = x == other if squared.op_type == "Mul" else graph.scalar(other) == 2
    return _Length(x, _axes(graph, node)) if is_square else None


def _at_least(found: _Length | None, least: float) -> _Length | None:
    return None if found is None else replace(found, least=max(found.least, least))


def _root(square: _Length | None) -> _Length | None:
    return None if square is None else replace(square, least=square.least**0.5)


def _limited(graph: Nodes, name: str) -> tuple[str, float] | None:
    """(x, least) where ``name`` is ``max(x, least)`` or ``x`` plus a small number; None otherwise."""
    node = graph.made_by(name, "Clip", "Max", "Add")
    if node is None:
        return None
    given = [(i, graph.scalar(i)) for i in node.input if i]
    inner = [i for i, value in given if value is None]
    values = [value for _, value in given if value is not None]
    if node.op_type == "Clip":
        low = _attribute(node, "min", graph.scalar(node.input[1]) if len(node.input) > 1 else None)
        return None if low is None else (node.input[0], float(low))
    if len(inner) != 1 or not values or (node.op_type == "Add" and values[0] > _SMALL):
        return None
    return inner[0], max(values) if node.op_type == "Max" else 0.0


def _axes(graph: Nodes, node: NodeProto) -> tuple[int, ...] | None:
    axes = _attribute(node, "axes", None)
    if axes is None and len(node.input) > 1 and node.input[1]:
        value = graph.constants.get(node.input[1])
        axes = None if value is None else value.reshape(-1).tolist()
    return None if axes is None else tuple(int(axis) for axis in axes)


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    found = (helper.get_attribute_value(a) for a in node.attribute if a.name == name)
    return next(found, default)


def _l2_normalize(op: Operands) -> str:
    rank = len(op.shape())
    return _normalized(op, op.attrs.get("axes", range(rank)), float(op.attrs.get("eps", 0.0)))


def _lp_normalization(op: Operands) -> str:
    if op.attrs.get("p", 2) != 2:
        raise NotCanonical(f"a norm of order {op.attrs['p']}")
    return _normalized(op, [op.attrs.get("axis", -1)], 1e-12)


def _normalized(op: Operands, given: Any, eps: float) -> str:
    """Rows of length 1, over all axes but the batch or over one axis."""
    source, shape = op.activation(), op.shape()
    rank, module = len(shape), ops.L2Normalize(eps)
    axes = {int(axis) % rank for axis in given}
    if 0 in axes and not op.context.single:
        raise NotCanonical("a norm across the batch")
    long = [axis for axis in range(1, rank) if shape[axis] > 1]
    over = [axis for axis in long if axis in axes]
    if over == [rank - 1] or (not over and shape[-1] == 1):
        return op.add(module, source)
    if not over:
        raise NotCanonical(f"a norm over axes {sorted(axes)} of {shape}")
    if over == long:
        flat = op.add(ops.Reshape([prod(shape[1:])]), source, suffix="_flat")
        return op.add(ops.Reshape(shape[1:]), op.add(module, flat), suffix="_shaped")
    if len(over) > 1:
        raise NotCanonical(f"a norm over axes {sorted(axes)} of {shape}")
    order = [*(axis for axis in range(rank) if axis != over[0]), over[0]]
    last = op.add(ops.Transpose(order), source, suffix="_last")
    back = [int(axis) for axis in np.argsort(order)]
    return op.add(ops.Transpose(back), op.add(module, last), suffix="_back")


NORM_HANDLERS: dict[str, Handler] = {
    L2_NORM: _l2_normalize,
    "LpNormalization": _lp_normalization,
}
