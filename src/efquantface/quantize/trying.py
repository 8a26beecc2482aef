"""Optimizations that are kept only where they change nothing: none may end a run, or its network."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, fx

Progress = Callable[[str, int, int], None]
Optimization = Callable[[fx.GraphModule, list[Tensor], Progress], int]

_SAME = 1e-3  # of an embedding's length


@torch.no_grad()
def tried(
    optimization: Optimization, gm: fx.GraphModule, batches: list[Tensor], progress: Progress
) -> tuple[fx.GraphModule, str]:
    """An optimized graph, or the one that was given where the optimization does not apply.

    Args:
        optimization: changes a float graph in place and keeps its embeddings.
        gm: not changed.
        batches: pixels (N,3,H,W).
        progress: of the optimization.

    Returns:
        A graph, and why it is the one that was given; empty where it is not.
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
