"""Recovery without training: what is left of each layer is fitted to what the teacher's gave.

Layers are visited in order, pruned network and teacher side by side. A layer that has lost inputs, or
reads tensors that have changed, gets the weights nearest to its own that bring the outputs it still has
near the teacher's (He et al. 2017, eq. 5, without the selection).
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from efquantface.graph import ops
from efquantface.graph.fitting import Stepper, fit
from efquantface.graph.graph import name_of

_CROPS = 192


@torch.no_grad()
def refit(
    pruned: fx.GraphModule,
    teacher: fx.GraphModule,
    batches: list[Tensor],
    kept: dict[str, list[int]],
    *,
    seed: int = 0,
) -> None:
    """Fit the layers of ``pruned`` in place.

    Args:
        pruned, teacher: float graphs with the same names.
        batches: pixels (N,3,H,W).
        kept: of every layer that lost outputs, the teacher's numbers of those it has left.
        seed: of the positions that layers are fitted on.
    """
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.cat(batches)[:_CROPS].float()
    ours, theirs = Stepper(pruned, pixels), Stepper(teacher, pixels)
    while (at := ours.step()) is not None:
        node, module = at
        if isinstance(module, ops.Conv2d | ops.Linear):
            wanted = theirs.until(name_of(node))
            numbers = kept.get(name_of(node))
            if numbers is not None:
                axis = 1 if isinstance(module, ops.Conv2d) else -1
                wanted = wanted.index_select(axis, torch.tensor(numbers))
            _fit(module, ours.inputs(node)[0], wanted, generator)
        ours.finish(node, module)


def _fit(
    layer: ops.Conv2d | ops.Linear, x: Tensor, wanted: Tensor, generator: torch.Generator
) -> None:
    found = fit(layer, x, wanted, generator)
    if found is None:
        return
    layer.weight.copy_(found.weight.reshape(layer.weight.shape))
    assert layer.bias is not None
    layer.bias.copy_(found.bias(found.weight))
