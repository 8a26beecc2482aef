"""Functions that exporters write as several ONNX nodes, replaced by one: GELU, LayerNorm, L2 norm.

The new nodes have types of their own (``FUSED``), which only our importer knows. Nodes that are left
without readers are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, NodeProto, helper, numpy_helper

from efquantface.importers.onnx.norms import l2_norm

Constants = Mapping[str, npt.NDArray[Any]]
GELU, LAYER_NORM = "efq.Gelu", "efq.LayerNorm"
_CLOSE = 1e-3


def fuse_patterns(
    nodes: list[NodeProto], outputs: set[str], constants: Constants
) -> list[NodeProto]:
    """The nodes of a graph with known groups replaced. Other nodes are not changed.

    Args:
        nodes: in execution order.
        outputs: names of the graph's outputs.
        constants: initializers by name; ``Constant`` nodes count as well.
    """
    graph = _Graph(nodes, constants)
    for match in (_gelu, _layer_norm, l2_norm):
        for node in nodes:
            fused = match(graph, node)
            if fused is not None:
                graph.replace(node, fused)
    return graph.alive(outputs)


class _Graph:
    def __init__(self, nodes: list[NodeProto], constants: Constants) -> None:
        self.nodes: list[NodeProto] = list(nodes)
        self.constants = dict(constants)
        for node in nodes:
            if node.op_type == "Constant":
                value = next((a for a in node.attribute if a.name == "value"), None)
                if value is not None:
                    self.constants[node.output[0]] = _tensor(value)
        self.maker = {name: node for node in nodes for name in node.output}

    def made_by(self, name: str, *types: str) -> NodeProto | None:
        """The node of one of these types that gives ``name``; None where there is none."""
        node = self.maker.get(name)
        return node if node is not None and node.op_type in types else None

    def scalar(self, name: str) -> float | None:
        """The value of a constant of one element; None for anything else."""
        value = self.constants.get(name)
        return float(value.reshape(())) if value is not None and value.size == 1 else None

    def with_scalar(self, name: str, op: str, value: float) -> str | None:
        """The other operand where ``name`` is ``op`` of it and nearly this constant, else None."""
        node = self.made_by(name, op)
        if node is None or len(node.input) != 2:
            return None
        for this, other in ((0, 1), (1, 0)):
            found = self.scalar(node.input[this])
            if found is not None and abs(found - value) < _CLOSE * abs(value):
                if op == "Div" and this == 0:
                    continue
                return str(node.input[other])
        return None

    def replace(self, node: NodeProto, fused: NodeProto) -> None:
        index = next(i for i, n in enumerate(self.nodes) if n is node)
        self.nodes[index] = fused
        self.maker[fused.output[0]] = fused

    def alive(self, outputs: set[str]) -> list[NodeProto]:
        """Nodes that lead to an output."""
        wanted = set(outputs)
        kept = []
        for node in reversed(self.nodes):
            if any(name in wanted for name in node.output):
                kept.append(node)
                wanted.update(node.input)
        return kept[::-1]


def _tensor(attribute: AttributeProto) -> npt.NDArray[Any]:
    return np.asarray(numpy_helper.to_array(attribute.t))


def _gelu(graph: _Graph, node: NodeProto) -> NodeProto | None:
    """``x/2 (1 + erf(x / sqrt 2))``, with factors in any order that exporters write."""
    if node.op_type != "Mul":
        return None
    factors = _factors(graph, node.output[0])
    if factors is None:
        return None
    scale, names = factors
    if abs(scale - 0.5) > _CLOSE or len(names) != 2:
        return None
    for x, other in (names, names[::-1]):
        bent = graph.with_scalar(other, "Add", 1.0)
        erf = None if bent is None else graph.made_by(bent, "Erf")
        if erf is None:
            continue
        inside = graph.with_scalar(erf.input[0], "Div", np.sqrt(2.0)) or graph.with_scalar(
            erf.input[0], "Mul", np.sqrt(0.5)
        )
        if inside == x:
            return helper.make_node(GELU, [x], [node.output[0]], name=node.name)
    return None


def _factors(graph: _Graph, name: str) -> tuple[float, list[str]] | None:
    """A product of up to three factors: the product of its constants, and its other factors."""
    scale, names, left = 1.0, list[str](), [name]
    for _ in range(6):
        if not left:
            break
        at = left.pop()
        value = graph.scalar(at)
        node = graph.made_by(at, "Mul")
        if value is not None:
            scale *= value
        elif node is not None and (at == name or len(left) + len(names) < 2):
            left += list(node.input)
        else:
            names.append(at)
    return None if left else (scale, names)


def _layer_norm(graph: _Graph, node: NodeProto) -> NodeProto | None:
    """``(x - mean) / sqrt(mean((x - mean)^2) + eps)`` over one axis."""
    if node.op_type != "Div":
        return None
    centred = graph.made_by(node.input[0], "Sub")
    root = graph.made_by(node.input[1], "Sqrt")
    shifted = None if root is None else graph.made_by(root.input[0], "Add")
    if centred is None or shifted is None:
        return None
    eps = next((v for v in map(graph.scalar, shifted.input) if v is not None), None)
    variance = next(
        (n for i in shifted.input if (n := graph.made_by(i, "ReduceMean")) is not None), None
    )
    mean = graph.made_by(centred.input[1], "ReduceMean")
    if eps is None or variance is None or mean is None or mean.input[0] != centred.input[0]:
        return None
    square = graph.made_by(variance.input[0], "Pow", "Mul")
    if square is None or square.input[0] != node.input[0]:
        return None
    axis = _one_axis(graph, mean)
    if axis is None or axis != _one_axis(graph, variance):
        return None
    return helper.make_node(
        LAYER_NORM, [centred.input[0]], [node.output[0]], name=node.name, epsilon=eps, axis=axis
    )


def _one_axis(graph: _Graph, node: NodeProto) -> int | None:
    """The axis of a reduction over one axis that keeps it; None for others."""
    axes = _attribute(node, "axes", None)
    if axes is None and len(node.input) > 1:
        value = graph.constants.get(node.input[1])
        axes = None if value is None else value.reshape(-1).tolist()
    return int(axes[0]) if len(axes or []) == 1 and _attribute(node, "keepdims", 1) == 1 else None


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default
