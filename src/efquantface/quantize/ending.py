"""The end of a network: what is computed behind its last layers with weights, on one vector a face.

It stays in float. There is nothing to gain from integers there, and codes would cost the embedding
precision. On maps (convolution, PReLU, pooling to a vector) layers compute in integers as elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from torch import fx, nn

from efquantface.graph import ops
from efquantface.graph.graph import module_of, name_of, output_node
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear

_KEEPS_RATIO = (
    *(ops.PReLU, ops.GlobalAvgPool, ops.AvgPool2d, ops.Concat, ops.Flatten, ops.Reshape),
    *(ops.Transpose, ops.Slice, ops.MaxPool2d, ops.ZeroPad, ops.Add),
)


def ending(gm: fx.GraphModule, sizes: Mapping[str, tuple[int, ...]]) -> list[fx.Node]:
    """Nodes that give float and that no layer with weights reads, in the order of execution.

    Linear layers are among them where their result is the embedding, or becomes it without another
    layer with weights; convolutions are not, since integer kernels want codes behind them.

    Args:
        gm: canonical graph, float.
        sizes: shape of each node's value for one crop, by name.
    """
    found: set[fx.Node] = set()
    for node in reversed(gm.graph.nodes):
        module = module_of(gm, node)
        if module is None or isinstance(module, ops.Conv2d):
            continue
        read_in_float = all(
            user.op == "output"
            or (user in found and not isinstance(module_of(gm, user), ops.Linear))
            for user in node.users
        )
        if read_in_float and _is_vector(sizes[name_of(node)]):
            found.add(node)
    return [node for node in gm.graph.nodes if node in found]


def _is_vector(shape: tuple[int, ...]) -> bool:
    return prod(shape[1:]) == max(shape[1:])


def rescale_embedding(gm: fx.GraphModule, factor: float) -> bool:
    """Multiply a student's embedding by ``factor`` without changing a code, where its end allows it.

    Scales of the last layers, and of quantizers behind them, are multiplied. What does not hand on a
    factor (a norm, a sigmoid) leaves all as it was.

    Args:
        gm: quantized; changed in place.
        factor: positive.

    Returns:
        Whether it was done.
    """
    layers = _last_layers(gm)
    for layer in layers:
        layer.rescale(factor)
    return bool(layers)


def _last_layers(
    gm: fx.GraphModule,
) -> list[QuantConv2d | QuantLinear | ActivationQuantizer]:
    """What a factor of the embedding can be put into; nothing where something is in the way."""
    found = list[QuantConv2d | QuantLinear | ActivationQuantizer]()
    seen, pending = set[fx.Node](), [output_node(gm)]
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        module = module_of(gm, node)
        if isinstance(module, QuantConv2d | QuantLinear):
            found.append(module)
            continue
        if isinstance(module, ActivationQuantizer) and module.max_value is None:
            found.append(module)
        elif not _keeps_ratio(module):
            return []
        pending += node.all_input_nodes
    read_elsewhere = any(user not in seen and user.op != "output" for n in seen for user in n.users)
    return [] if read_elsewhere else found


def _keeps_ratio(module: nn.Module | None) -> bool:
    """Whether a positive factor in front of a module is the same factor behind it."""
    if isinstance(module, ops.Clamp):
        return {module.low, module.high} <= {None, 0.0}
    if isinstance(module, QuantAffine):
        return not bool(module.bias.any())
    return isinstance(module, _KEEPS_RATIO)
