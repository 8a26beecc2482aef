"""The importance of channels: what the embedding loses when a channel is removed."""

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
    """Importance (C,) of each group's channels: the distillation loss when a channel is removed.

    The distillation loss of unit embeddings is ``1 - cos = |e - t|^2 / 2``. At the teacher it is zero,
    and its gradient is zero, too. A gate m scales a channel where layers read it. When the gate closes,
    the embedding moves by ``de/dm`` to first order, so the loss becomes ``|de/dm|^2 / 2``. This is the
    Gauss-Newton form of Molchanov et al. 2019, eq. 8, with the embedding in place of the loss. Its mean
    over crops is estimated along random directions of the embedding, with one backward pass each.

    Args:
        gm: float graph, pixels to embeddings (N,D).
        groups: channel groups of ``gm``.
        batches: uint8 pixels (N,3,H,W), of which the first 96 crops are taken.
        seed: of the directions.
        progress: called with (done, total).

    Returns:
        By group, importance (C,), at least 0.
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
    """Importance (C,): squared norm of the weights that compute a channel, over the group's mean.

    The usual criterion (Li et al. 2017), for comparison. It does not look at the embedding.

    Args:
        gm: float graph.
        groups: channel groups of ``gm``.
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
