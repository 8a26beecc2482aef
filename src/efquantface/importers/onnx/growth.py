"""How many values a node of constants would give, asked before the node is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from efquantface.graph.limits import MOST_VALUES, TooLarge

Array = npt.NDArray[Any]
_ENDLESS = (
    "Loop",
    "Scan",
    "If",
    "SequenceMap",
)  # they run graphs of their own, as often as they say


def check_folded(node: onnx.NodeProto, inputs: Sequence[Array]) -> None:
    """Refuse a node whose result would be too large, or that may never end.

    Raises:
        TooLarge: with the reason.
    """
    if node.op_type in _ENDLESS:
        raise TooLarge(f"{node.op_type} of constants is not computed")
    given = sum(value.size for value in inputs)
    attributes = {a.name: a for a in node.attribute}
    expected = max(_expected(node.op_type, list(inputs), attributes), given)
    if expected > MOST_VALUES:
        raise TooLarge(f"gives {expected:,} values")


def _expected(kind: str, inputs: list[Array], attributes: Mapping[str, Any]) -> int:
    """An upper bound of the result's number of values, for operators that give more than they read."""
    shapes = [value.shape for value in inputs]
    if kind == "ConstantOfShape":
        return _size(inputs[0])
    if kind == "Expand":
        return max(_size(inputs[1]), 1) * max(inputs[0].size, 1)
    if kind == "Tile":
        return inputs[0].size * _size(inputs[1])
    if kind == "Range":
        start, stop, step = (float(v.reshape(-1)[0]) for v in inputs[:3])
        return int(abs((stop - start) / step)) + 1 if step else 0
    if kind == "Pad":
        pads = inputs[1].reshape(-1).tolist() if len(inputs) > 1 else list(attributes["pads"].ints)
        half = len(pads) // 2
        wide = zip(shapes[0], pads[:half], pads[half:], strict=False)
        return prod(max(n + int(a) + int(b), 0) for n, a, b in wide)
    if kind in ("Resize", "Upsample"):
        numbers = [float(v) for value in inputs[1:] for v in value.reshape(-1)[:8].tolist()]
        return int(min(inputs[0].size * prod(max(abs(v), 1.0) for v in numbers), 2.0**62))
    if kind == "OneHot":
        return inputs[0].size * int(abs(float(inputs[1].reshape(-1)[0])))
    if kind == "Gather" and inputs[0].size:
        axis = attributes["axis"].i if "axis" in attributes else 0
        return int(inputs[0].size // shapes[0][axis] * inputs[1].size)
    if kind in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        return _size(inputs[0])
    if kind in ("RandomNormal", "RandomUniform"):
        return prod(abs(int(v)) for v in attributes["shape"].ints)
    if kind in ("MatMul", "Gemm") and all(shapes[:2]):
        inner = max(min(shapes[0][-1], shapes[0][0]), 1)
        return int(prod(max(value.size, 1) for value in inputs[:2]) // inner**2)
    try:
        return prod(np.broadcast_shapes(*shapes))
    except ValueError:
        return 0  # shapes that do not broadcast


def _size(shape: Array) -> int:
    return prod(abs(int(v)) for v in shape.reshape(-1)[:64].tolist())
