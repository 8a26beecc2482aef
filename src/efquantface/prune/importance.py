"""What an embedding loses with each channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from efquantface.graph import ops
from efquantface.prune.channels import ChannelGroup

_DIRECTIONS = 2  # random directions of the embedding a batch
_CROPS = 96


def taylor(
    gm: fx.GraphModule,
    groups: list[ChannelGroup],
    batches: list[Tensor],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Tensor]:
    """Scores (C,) of each group's channels: the distillation loss when a channel is removed.

    At the teacher itself the distillation loss ``1 - cos = |e - t|^2 / 2`` of unit embeddings is zero
    and so is its slope. To first order the embedding moves by ``de/dm`` when a channel's gate m is
    closed where its readers read it, so the loss becomes ``|de/dm|^2 / 2`` (the Gauss-Newton form of
    Molchanov et al. 2019, eq. 8, with the embedding in the place of the loss). Its mean over crops is
    estimated along random directions of the embedding, each with one backward pass.

    Args:
        gm: float graph over pixels.
        groups: of it.
        batches: pixels (N,3,H,W).
        seed: of the directions.
        progress: called with (done, total).
    """
    generator = torch.Generator().manual_seed(seed)
    scores = {group.name: torch.zeros(group.size) for group in groups}
    gates: dict[str, Tensor] = {}
    hooks = []
    for group in groups:
        for reader, spread in group.readers:
            module = gm.get_submodule(reader)
            hooks.append(module.register_forward_pre_hook(_gate(gates, group.name, spread)))
    batches = list(torch.split(torch.cat(batches)[:_CROPS], len(batches[0])))
    crops = sum(len(batch) for batch in batches)
    try:
        for done, batch in enumerate(batches):
            for group in groups:
                gates[group.name] = torch.ones(len(batch), group.size, requires_grad=True)
            embedding = F.normalize(gm(batch.float()), dim=1)
            for turn in range(_DIRECTIONS):
                direction = torch.randn(embedding.shape, generator=generator)
                slopes = torch.autograd.grad(
                    (embedding * direction).sum(),
                    [gates[group.name] for group in groups],
                    retain_graph=turn + 1 < _DIRECTIONS,
                )
                for group, slope in zip(groups, slopes, strict=True):
                    scores[group.name] += slope.square().sum(dim=0) / (2 * crops * _DIRECTIONS)
            progress(done + 1, len(batches))
    finally:
        for hook in hooks:
            hook.remove()
    return scores


def _gate(gates: dict[str, Tensor], name: str, spread: int) -> Callable[..., Any]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0]
        gate = gates[name].repeat_interleave(spread, dim=1)
        if isinstance(module, ops.Linear):  # channels are the last axis
            shape = (len(x), *(1,) * (x.dim() - 2), -1)
        else:
            shape = (len(x), -1, *(1,) * (x.dim() - 2))
        return (x * gate.view(shape),)

    return hook


@torch.no_grad()
def magnitude(gm: fx.GraphModule, groups: list[ChannelGroup]) -> dict[str, Tensor]:
    """Scores (C,): squared length of the weights that make a channel, over the group's mean.

    What is usual (Li et al. 2017), as a peer; it knows nothing of the embedding.
    """
    scores = {}
    for group in groups:
        total = torch.zeros(group.size)
        for writer in (*group.writers, *group.depthwise):
            weight: Any = gm.get_submodule(writer).weight
            total += weight.flatten(1).square().sum(dim=1)
        scores[group.name] = total / total.mean().clamp(min=1e-12)
    return scores


IMPORTANCES = ("taylor", "magnitude")
