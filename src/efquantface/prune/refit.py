"""Recovery without training: what is left of each layer is fitted to the teacher's outputs.

Layers are visited in order, in the pruned network and in the teacher. A layer that has lost inputs, or
whose inputs have changed, is fitted again. Its new weights bring its remaining outputs near the
teacher's, and stay near the old weights (He et al. 2017, eq. 5, without the selection).
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from efquantface.graph import ops
from efquantface.graph.fitting import Stepper, fit
from efquantface.graph.graph import module_nodes, module_of, name_of

_CROPS = 192


@torch.no_grad()
def refit(
    pruned: fx.GraphModule,
    teacher: fx.GraphModule,
    batches: list[Tensor],
    kept: dict[str, list[int]],
    *,
    stands_for: dict[str, str] | None = None,
    seed: int = 0,
) -> None:
    """Fit the layers of ``pruned`` in place.

    Args:
        pruned, teacher: float graphs with the same names.
        batches: uint8 pixels (N,3,H,W), of which the first 192 crops are taken.
        kept: by layer that lost output channels: the teacher's numbers of those left.
        stands_for: of a network without some blocks (:class:`~efquantface.prune.blocks.Shallower`).
            Then a layer before a sum also corrects the error of the sum's other operand.
        seed: of the positions that layers are fitted on.
    """
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.cat(batches)[:_CROPS].float()
    ours, theirs = Stepper(pruned, pixels), Stepper(teacher, pixels)
    wants = _wants(pruned, teacher, stands_for)
    while (at := ours.step()) is not None:
        node, module = at
        if isinstance(module, ops.Conv2d | ops.Linear):
            name, other = wants[node]
            wanted = theirs.until(name)
            numbers = kept.get(name_of(node))
            if numbers is not None:
                axis = 1 if isinstance(module, ops.Conv2d) else -1
                wanted = wanted.index_select(axis, torch.tensor(numbers))
            if other is not None:
                wanted = wanted - ours.values[other]
            _fit(module, ours.inputs(node)[0], wanted, generator)
        ours.finish(node, module)


def _wants(
    pruned: fx.GraphModule, teacher: fx.GraphModule, stands_for: dict[str, str] | None
) -> dict[fx.Node, tuple[str, fx.Node | None]]:
    """By layer: the teacher's value that it is fitted to, and the node subtracted from that value.

    The teacher is run once, so values are taken in its order. If a layer's value would come after that
    of a later layer, the layer is fitted to its own output.
    """
    order = {name_of(node): place for place, node in enumerate(teacher.graph.nodes)}
    places = {node: place for place, node in enumerate(pruned.graph.nodes)}
    found: dict[fx.Node, tuple[str, fx.Node | None]] = {}
    limit = len(order)
    for node, module in reversed(module_nodes(pruned)):
        if not isinstance(module, ops.Conv2d | ops.Linear):
            continue
        name, other = name_of(node), None
        if stands_for is not None:
            value, operand = _sum_behind(pruned, node) or (node, None)
            wanted = stands_for.get(name_of(value), name_of(value))
            if order[wanted] < limit and (operand is None or places[operand] < places[node]):
                name, other = wanted, operand
        limit = order[name]
        found[node] = name, other
    return found


def _sum_behind(gm: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The sum that is the only reader of ``node``, and its other operand; None if there is none."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    others = [n for n in user.all_input_nodes if n is not node]
    if not isinstance(module_of(gm, user), ops.Add) or len(others) != 1:
        return None
    return user, others[0]


def _fit(
    layer: ops.Conv2d | ops.Linear, x: Tensor, wanted: Tensor, generator: torch.Generator
) -> None:
    found = fit(layer, x, wanted, generator)
    if found is None:
        return
    layer.weight.copy_(found.weight.reshape(layer.weight.shape))
    assert layer.bias is not None
    layer.bias.copy_(found.bias(found.weight))
