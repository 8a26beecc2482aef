"""How far LiteRT's kernels may be from the student's rounding, layer by layer.

XNNPACK rounds all integer layers as the student does. Its additions multiply by whole numbers of 21
bits; moved scales (:mod:`sums`) make up for that where they can. LiteRT's own kernels round products
twice, first to one step of the accumulator. They round the zero point of a mean to a whole code.
"""

from __future__ import annotations

from math import prod

import numpy as np
from torch import fx

from efquantface.formats.litert.pool_forms import POOLED, is_summed
from efquantface.graph import ops
from efquantface.graph.graph import module_of, name_of
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear
from efquantface.quantize.narrow import quantizer_of

_SUM_BITS = 20  # of a sum's larger factor, behind its first bit
_CODES = 255  # how far a code lies from its zero point, at most


def moved_by(
    gm: fx.GraphModule, node: fx.Node, shapes: dict[str, tuple[int, ...]], builtin: bool
) -> float:
    """How far a quantizer's value may lie from the student's before it is rounded, in codes.

    Args:
        gm: quantized.
        node: the quantizer's node.
        shapes: of each node's value, by the node's name.
        builtin: for LiteRT's own kernels, not XNNPACK's.
    """
    quantizer, source = module_of(gm, node), node.args[0]
    assert isinstance(quantizer, ActivationQuantizer)
    assert isinstance(source, fx.Node)
    module, made = module_of(gm, source), quantizer.qparams()[0]
    read = [_scale_of(gm, value) for value in source.all_input_nodes]
    if module is None or None in read:
        return 0.0
    scales = [scale for scale in read if scale is not None]
    if isinstance(module, ops.Add):
        return _CODES * max(scales) / made * 2.0**-_SUM_BITS
    if not builtin:
        return 0.0
    if isinstance(module, QuantConv2d | QuantLinear | QuantAffine):
        return scales[0] * float(module.scale().detach().max()) / made
    if isinstance(module, ops.Multiply):
        return prod(scales) / made
    if isinstance(module, ops.AvgPool2d):
        return scales[0] / POOLED / made
    if isinstance(module, ops.GlobalAvgPool):
        height, width = shapes[name_of(source.all_input_nodes[0])][2:]
        summed = is_summed((height, width))
        return scales[0] / POOLED / made if summed else 0.5 + scales[0] / made
    return 0.0


def _scale_of(gm: fx.GraphModule, node: fx.Node) -> float | None:
    """The scale of the codes that a node gives; None for float."""
    try:
        return float(np.float32(quantizer_of(gm, node).qparams()[0]))
    except AssertionError:
        return None
