"""Optimizations that are kept only if embeddings stay the same. A failing one ends no run."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, fx

Progress = Callable[[str, int, int], None]
Optimization = Callable[[fx.GraphModule, list[Tensor], Progress], int]

_SAME = 1e-3  # of an embedding's length, at most


@torch.no_grad()
def tried(
    optimization: Optimization, gm: fx.GraphModule, batches: list[Tensor], progress: Progress
) -> tuple[fx.GraphModule, str]:
    """An optimized copy of a graph, or the graph itself where the optimization does not apply.

    Args:
        optimization: changes a float graph in place and should keep its embeddings.
        gm: not changed.
        batches: pixels (N,3,H,W).
        progress: handed to the optimization.

    Returns:
        The graph, and the reason if it is ``gm`` itself; an empty reason if it is optimized.
    """
    device = next(gm.parameters()).device
    pixels = batches[0].to(device).float()
    found = copy.deepcopy(gm)
    try:
        optimization(found, batches, progress)
        before, after = gm(pixels), found(pixels)
    except (RuntimeError, ValueError, LookupError, AssertionError) as error:
        return (
            gm,
            f"does not apply ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
        )
    apart = float((after - before).norm() / before.norm().clamp(min=1e-12))
    if not apart <= _SAME:
        return gm, f"would change embeddings by {apart:.2g} of their length"
    return found, ""
