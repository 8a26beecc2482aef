"""The normalization inside a file, measured with black, grey and white crops through its first nodes.

Nodes are computed as long as they are arithmetic with constants or moves of pixels (a part of the image,
padding, a mirror image, another order of channels or axes).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from efquantface.importers.onnx.folding import NotConstant, fold
from efquantface.importers.onnx.image_input import ImageInput
from efquantface.importers.onnx.proto import Array, constants_of

_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Neg", "Sum", "BatchNormalization")
_MOVES = (
    *("Identity", "Cast", "Slice", "Pad", "Transpose", "Gather", "Split", "Concat", "Reshape"),
    *("Squeeze", "Unsqueeze", "Flatten", "Expand", "Dropout", "Tile"),
)
_OVER_CHANNELS = ("ReduceSum", "ReduceMean")
_PIXELS = (0, 128, 255)
_STRAIGHT = 1e-3  # of the range; grey may be so far off the line from black to white


def front(model: onnx.ModelProto, image: ImageInput, size: tuple[int, int]) -> tuple[float, float]:
    """(mean, std) in pixel values, averaged over channels; (0, 1) where there is no normalization.

    Args:
        model: the file.
        image: its input.
        size: height and width of a crop.
    """
    constants = constants_of(model)
    values = {image.name: [np.asarray(image.crop(v, size)) for v in _PIXELS]}
    for node in model.graph.node:
        names = [name for name in node.input if name]
        read = [name for name in names if name in values]
        try:
            if not read:
                if all(name in constants for name in names):
                    constants |= fold(node, constants, model)
                continue
            if node.op_type == "Shape":
                constants |= fold(node, {read[0]: values[read[0]][0]}, model)
                continue
            if node.op_type not in (*_ARITHMETIC, *_MOVES, *_OVER_CHANNELS):
                raise NotConstant("more than a normalization")
            made = _computed(node, values, constants, model)
        except NotConstant:
            if read:
                return _of(values[read[0]])
            continue
        values |= made
    return 0.0, 1.0  # the file has no other nodes


def _computed(
    node: onnx.NodeProto,
    values: Mapping[str, list[Array]],
    constants: Mapping[str, Array],
    model: onnx.ModelProto,
) -> dict[str, list[Array]]:
    """A node's results for each crop.

    Raises:
        NotConstant: the node cannot be computed, or is not linear in the pixels.
    """
    each = []
    for index in range(len(_PIXELS)):
        feeds = {name: crops[index] for name, crops in values.items() if name in node.input}
        shapes = {np.shape(v) for v in feeds.values()}
        with np.errstate(all="ignore"):  # values that are not finite are no normalization
            found = fold(node, {**constants, **feeds}, model)
        if node.op_type in _ARITHMETIC and any(v.shape not in shapes for v in found.values()):
            raise NotConstant("a constant that does not fit the crop")
        if node.op_type in _OVER_CHANNELS and {v.shape[-2:] for v in found.values()} != {
            shape[-2:] for shape in shapes
        }:
            raise NotConstant("a sum over height and width")
        each.append(found)
    results = {name: [found[name] for found in each] for name in each[0]}
    if not all(_is_straight(crops) for crops in results.values()):
        raise NotConstant("not straight in the pixels")
    return results


def _is_straight(crops: list[Array]) -> bool:
    black, grey, white = (np.asarray(v, np.float64) for v in crops)
    if not (np.isfinite(black).all() and np.isfinite(white).all()):
        return False
    share = _PIXELS[1] / _PIXELS[2]
    off = np.abs(grey - (black + (white - black) * share)).max(initial=0)
    return bool(off <= _STRAIGHT * max(np.abs(white - black).max(initial=0), 1e-6))


def _of(crops: list[Array]) -> tuple[float, float]:
    """(mean, std) that values show. Values that do not depend on pixels (padding) are left out."""
    black, white = (np.asarray(crops[i], np.float64) for i in (0, -1))
    depends = white != black
    if not depends.any():
        return 0.0, 1.0
    first, last = float(black[depends].mean()), float(white[depends].mean())
    slope = (last - first) / 255
    return ((0.0 - first) / slope, 1 / slope) if slope > 0 else (0.0, 1.0)
