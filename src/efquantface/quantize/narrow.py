"""Codes of fewer than 8 bits, where convolutions and linear layers read them.

Only layers that multiply gain from fewer bits. A tensor that only additions, averages or the parts of a
PReLU read keeps 8 bits. A tensor that both read, such as the sum at the head of a residual block, keeps
8-bit codes for the addition. The convolutions get a second, narrow quantizer: a per-channel scale of 1,
which is a depthwise 1x1 convolution in integers, and a quantizer behind it.
"""

from __future__ import annotations

from collections import defaultdict

from torch import fx

from efquantface.graph import ops
from efquantface.graph.graph import (
    free_name,
    insert_after,
    module_nodes,
    module_of,
    name_of,
    shapes,
)
from efquantface.graph.rewrites import between_maps
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.quantize.layers import QuantAffine

Quantizer = ActivationQuantizer | InputQuantizer
_WIDE = 8


def narrow(
    gm: fx.GraphModule, bits: dict[fx.Node, int], size: tuple[int, int], symmetric: bool
) -> None:
    """Set the bits of the codes that layers read. Quantizers are placed, all with 8 bits.

    Args:
        gm: the graph, changed in place.
        bits: of the codes that each convolution and linear layer reads.
        size: height and width of a crop.
        symmetric: whether added quantizers are symmetric.
    """
    if set(bits.values()) == {_WIDE}:
        return
    sizes = shapes(gm, *size)
    for node, module in module_nodes(gm):
        if not (isinstance(module, ActivationQuantizer) or ops.moves_codes(module)):
            continue
        wanted = defaultdict(list)
        for user in node.users:
            wanted[_bits_read(gm, user, bits)].append(user)
        if isinstance(module, ActivationQuantizer):
            most = max(wanted)
            replacement = ActivationQuantizer(most, module.rectified, module.max_value, symmetric)
            gm.set_submodule(str(node.target), replacement)
        if len(wanted) == 1:
            continue
        like = quantizer_of(gm, node)
        if isinstance(like, InputQuantizer):
            continue  # pixels have 8 bits
        for width, users in wanted.items():
            if width != max(wanted):
                quantizer = ActivationQuantizer(width, like.rectified, like.max_value, symmetric)
                _second_quantizer(gm, node, users, quantizer, sizes[name_of(node)])


def _bits_read(gm: fx.GraphModule, node: fx.Node, bits: dict[fx.Node, int]) -> int:
    """The most bits that a layer reads of the codes that ``node`` reads or hands on."""
    module = module_of(gm, node)
    if ops.moves_codes(module):
        return max(_bits_read(gm, user, bits) for user in node.users)
    return bits.get(node, _WIDE)


def quantizer_of(gm: fx.GraphModule, node: fx.Node) -> Quantizer:
    """The quantizer whose codes ``node`` gives or hands on."""
    while not isinstance(module := module_of(gm, node), ActivationQuantizer | InputQuantizer):
        assert ops.moves_codes(module), f"{node.target} is not quantized"
        parent = node.args[0]
        assert isinstance(parent, fx.Node)
        node = parent
    return module


def _second_quantizer(
    gm: fx.GraphModule,
    node: fx.Node,
    users: list[fx.Node],
    quantizer: ActivationQuantizer,
    shape: tuple[int, ...],
) -> None:
    """Let ``users`` of the codes of ``node`` read them through ``quantizer``."""
    others = [user for user in node.users if user not in users]
    name = free_name(gm, f"{node.target}_to{quantizer.bits}")
    copied = insert_after(gm, node, name, QuantAffine.identity(shape[1]))
    last = narrowed = insert_after(gm, copied, f"{name}_q", quantizer)
    if len(shape) != 4:
        last = between_maps(gm, copied, narrowed, shape)
    for user in others:
        user.replace_input_with(last, node)
