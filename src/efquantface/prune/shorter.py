"""A network without some of its residual blocks, fitted to the whole network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from efquantface.graph.model import FaceModel
from efquantface.prune.blocks import Block, blocks_of, without_blocks
from efquantface.prune.refit import refit
from efquantface.prune.shortcuts import without_zero_channels

_FITTED_CROPS = 48  # for a block's loss
_LOSS_CROPS = 64  # other crops, if there are enough


@dataclass(frozen=True)
class Shorter:
    """A network without some blocks.

    Attributes:
        model: float, its layers fitted to the whole network's.
        blocks: names of the removed ones.
        stands_for: see :class:`~efquantface.prune.blocks.Shallower`.
    """

    model: FaceModel
    blocks: tuple[str, ...]
    stands_for: dict[str, str]


def shorten(
    model: FaceModel, blocks: Sequence[Block], batches: list[Tensor], *, seed: int = 0
) -> Shorter:
    """A copy of a float model without ``blocks``, its other layers fitted in closed form.

    Args:
        model: canonical float model.
        blocks: of :func:`blocks_in`.
        batches: uint8 pixels (N,3,H,W); with an empty list nothing is fitted.
        seed: of the positions that layers are fitted on.
    """
    whole = without_zero_channels(model.graph, model.contract.height, model.contract.width)
    found = without_blocks(whole, blocks)
    if batches:
        refit(found.graph, whole, batches, {}, stands_for=found.stands_for, seed=seed)
    smaller = dataclasses.replace(model, graph=found.graph, notes=list(model.notes))
    return Shorter(smaller, tuple(block.name for block in blocks), found.stands_for)


def blocks_in(model: FaceModel) -> list[Block]:
    """The residual blocks that can be removed, in order."""
    return blocks_of(model.graph, model.contract.height, model.contract.width)


def block_losses(
    model: FaceModel,
    blocks: Sequence[Block],
    batches: list[Tensor],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, float]:
    """What the embedding loses without each block alone: mean 1 - cosine, the other layers fitted.

    Losses without the fit are misleading. Some blocks can be compensated well and others hardly: of two
    blocks, one can lose twice as much without the fit and a fifth as much with it.

    Args:
        model: canonical float model.
        blocks: of :func:`blocks_in`.
        batches: uint8 pixels (N,3,H,W), of about a hundred crops.
        seed: of the positions that layers are fitted on.
        progress: called with (done, total).
    """
    some = list(torch.split(torch.cat(batches)[:_FITTED_CROPS], len(batches[0])))
    wanted = embeddings(model, batches)
    found = {}
    for done, block in enumerate(blocks):
        fitted = shorten(model, [block], some, seed=seed).model
        found[block.name] = loss(embeddings(fitted, batches), wanted)
        progress(done + 1, len(blocks))
    return found


def embeddings(model: FaceModel, batches: list[Tensor]) -> Tensor:
    """Embeddings (N,D) of the last 64 crops of ``batches``, on which losses are measured."""
    return model.embed_pixels(torch.cat(batches)[-_LOSS_CROPS:])


def loss(found: Tensor, wanted: Tensor) -> float:
    """Mean 1 - cosine of embeddings ``found`` (N,D) to ``wanted`` (N,D)."""
    return float((1 - F.cosine_similarity(found, wanted)).mean())
