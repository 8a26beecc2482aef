"""Which values of a float graph become codes when it is quantized, and which stay float."""

from __future__ import annotations

from torch import fx, nn

from efquantface.graph import ops
from efquantface.graph.graph import module_of, name_of
from efquantface.quantize.fake_quant import InputQuantizer

_IF_INPUTS_ARE = (
    ops.AvgPool2d | ops.GlobalAvgPool | ops.Add | ops.Multiply | ops.Sigmoid | ops.PReLU
)
_ALWAYS = ops.Conv2d | ops.Affine | ops.Normalize | InputQuantizer


def codes_in(gm: fx.GraphModule, ranks: dict[str, int]) -> set[fx.Node]:
    """Nodes of a float graph whose values become codes.

    Convolutions and per-channel affines compute in integers and give codes. So do additions, products
    and averages of codes. A linear layer over the last axis of a map gives float. What is computed from
    float stays float, until a layer with weights reads it.

    Args:
        gm: canonical graph; its first operator is the normalization or the input quantizer.
        ranks: number of axes of each node's value, by the node's name.
    """
    found: set[fx.Node] = set()
    for node in gm.graph.nodes:
        module = module_of(gm, node)
        inputs_are = all(source in found for source in node.all_input_nodes)
        if node.op == "placeholder" or gives_codes(module, ranks.get(name_of(node), 0), inputs_are):
            found.add(node)
    return found


def gives_codes(module: nn.Module | None, rank: int, inputs_are: bool) -> bool:
    """Whether a float operator's value of ``rank`` axes becomes codes, if its inputs do or do not."""
    if isinstance(module, ops.Linear):
        return rank <= 2
    if ops.moves_codes(module) or isinstance(module, _IF_INPUTS_ARE):
        return inputs_are
    return isinstance(module, _ALWAYS)
