"""Which values of a float graph will be integer codes once it is quantized, and which stay float."""

from __future__ import annotations

from torch import fx, nn

from efquantface.graph.graph import module_of, name_of
from efquantface.graph.islands import Reshape, Slice, Transpose
from efquantface.graph.ops import (
    Add,
    Affine,
    Clamp,
    Flatten,
    GlobalAvgPool,
    Multiply,
    Normalize,
    PReLU,
    ZeroPad,
)
from efquantface.quantize.fake_quant import InputQuantizer

MOVES = nn.MaxPool2d | Flatten | ZeroPad | Clamp | Reshape | Slice | Transpose
_IF_INPUTS_ARE = nn.AvgPool2d | GlobalAvgPool | Add | Multiply | nn.Sigmoid | PReLU
_ALWAYS = nn.Conv2d | Affine | Normalize | InputQuantizer


def codes_in(gm: fx.GraphModule, ranks: dict[str, int]) -> set[fx.Node]:
    """Nodes of a float graph whose values become codes.

    Convolutions and per-channel affines compute in integers and give codes, as do additions,
    products and averages of codes. A linear layer over the last axis of a map gives float, and all
    that is computed from float is float until a layer with weights reads it.

    Args:
        gm: canonical graph, its normalization perhaps replaced by the input quantizer already.
        ranks: number of axes of each node's value, by name.
    """
    found: set[fx.Node] = set()
    for node in gm.graph.nodes:
        module = module_of(gm, node)
        inputs_are = all(source in found for source in node.all_input_nodes)
        if (
            node.op == "placeholder"
            or isinstance(module, _ALWAYS)
            or (isinstance(module, _IF_INPUTS_ARE | MOVES) and inputs_are)
            or (isinstance(module, nn.Linear) and ranks[name_of(node)] <= 2)
        ):
            found.add(node)
    return found
