"""The end of a network: what follows its last layers with weights, on one vector per face.

It stays in float. Integers would save nothing there and would cost precision of the embedding. On maps
(convolution, PReLU, pooling to a vector) layers compute in integers as elsewhere.
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

    Linear layers are among them if no other layer with weights stands between their result and the
    embedding. Convolutions are not: integer kernels need codes behind them.

    Args:
        gm: canonical float graph.
        sizes: shape of each node's value for one crop, by the node's name.
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
    """Multiply a student's embedding by ``factor`` without changing a code, where its end allows that.

    The scales of the last layers and of quantizers behind them are multiplied. Nothing is changed where
    an operator behind them does not hand on a factor (a norm, a sigmoid).

    Args:
        gm: quantized; changed in place.
        factor: positive.

    Returns:
        Whether the embedding was multiplied.
    """
    layers = _last_layers(gm)
    for layer in layers:
        layer.rescale(factor)
    return bool(layers)


def _last_layers(
    gm: fx.GraphModule,
) -> list[QuantConv2d | QuantLinear | ActivationQuantizer]:
    """The modules that can take a factor of the embedding; empty where the end does not hand it on."""
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
    """Whether a module hands on a positive factor."""
    if isinstance(module, ops.Clamp):
        return {module.low, module.high} <= {None, 0.0}
    if isinstance(module, QuantAffine):
        return not bool(module.bias.any())
    return isinstance(module, _KEEPS_RATIO)
