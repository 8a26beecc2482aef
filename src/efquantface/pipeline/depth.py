"""Chooses blocks and channels to remove by the embedding's loss for each ms saved.

Losses of blocks and of channels cannot be compared. A block's loss is large and measured. A channel's is
small and estimated. So candidates are built. Each has one more block removed than the last: the block
with the least loss for each ms. Then channels are removed until the goal is reached. The candidate with
the nearest embeddings is taken. So blocks are removed only where channels would lose more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from efquantface.errors import RecipeError
from efquantface.graph.model import FaceModel
from efquantface.pipeline.clock import Measure
from efquantface.pipeline.latency import least_share, reach, time_before
from efquantface.prune.blocks import Block
from efquantface.prune.goal import BlockPrice, Latency, PruneGoal
from efquantface.prune.prune import Pruned, prune, scores_of
from efquantface.prune.shorter import (
    Shorter,
    block_losses,
    blocks_in,
    embeddings,
    loss,
    shorten,
)

_FITTED_CROPS = 96  # for a candidate; the chosen network is fitted on more
_ROUNDS = 2
_PATIENCE = 2  # candidates in a row that are not better than the best


def prune_by_time(
    model: FaceModel,
    batches: list[Tensor],
    goal: PruneGoal,
    measure: Measure,
    *,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda *_: None,
    **options: Any,
) -> tuple[Pruned, Latency]:
    """Remove the blocks and channels with the least loss for each ms saved.

    Args:
        model, batches, progress: as for :func:`~efquantface.prune.prune.prune`.
        goal: ms for one crop on one thread, or a share of the multiply-accumulates.
        measure: ms of a float model's student (:class:`~efquantface.pipeline.clock.Clock`). It is called
            with ``model`` first. With the same times the choice is the same.
        say: called with a line on every candidate.
        options: ``importance``, ``round_to`` and ``seed`` of ``prune``.

    Returns:
        The pruned network, and the times.

    Raises:
        RecipeError: the network already meets the goal, or cannot be pruned to it.
    """
    search = _Search(model, batches, goal, measure, say, options)
    blocks, share = search.best()
    shorter = shorten(model, blocks, batches, seed=search.seed) if blocks else None
    options = {**options, "shorter": shorter, "progress": progress}
    if goal.ms is not None:
        made, after = reach(model, batches, goal.ms, share, measure, say=say, **options)
    else:
        made = prune(model, batches, share, **options)
        after = measure(made.model)
        say(f"pruned {made.share:.0%}: {after:.2f} ms")
    table = tuple(
        BlockPrice(block.name, search.saved[block.name], lost, block.name in made.blocks)
        for block, lost in search.priced
    )
    return made, Latency(goal.ms, search.before, after, table)


class _Search:
    """Candidates: each has one more block removed, and channels until the goal is reached."""

    def __init__(
        self,
        model: FaceModel,
        batches: list[Tensor],
        goal: PruneGoal,
        measure: Measure,
        say: Callable[[str], None],
        options: dict[str, Any],
    ) -> None:
        self.model, self.goal, self.measure, self.say = model, goal, measure, say
        self.options, self.seed = options, int(options.get("seed", 0))
        self.some = list(torch.split(torch.cat(batches)[:_FITTED_CROPS], len(batches[0])))
        self.batches = batches
        self.before = time_before(model, goal.ms, measure, say)
        blocks = blocks_in(model)
        if not blocks:
            say("no residual block can be removed: only channels are")
        self.saved = {
            block.name: self.before - measure(shorten(model, [block], []).model) for block in blocks
        }
        losses = block_losses(model, blocks, batches, seed=self.seed)
        self.priced = [(block, losses[block.name]) for block in blocks]
        for block, lost in self.priced:
            say(
                f"without {block.name}: {self.saved[block.name]:.3f} ms less, 1 - cosine {lost:.4f}"
            )

    def best(self) -> tuple[list[Block], float]:
        """The blocks of the best candidate, and the share of multiply-accumulates removed.

        Raises:
            RecipeError: no candidate meets the goal.
        """
        worth = [
            (lost / self.saved[b.name], b) for b, lost in self.priced if self.saved[b.name] > 0
        ]
        order = [block for _, block in sorted(worth, key=lambda pair: pair[0])]
        wanted = embeddings(self.model, self.batches)
        best: tuple[float, list[Block], float] | None = None
        worse, refused = 0, ""
        for count in range(len(order) + 1):
            blocks = order[:count]
            try:
                made, share = self._candidate(blocks)
            except RecipeError as error:
                refused = refused or str(error)
                continue
            after = self.measure(made.model)
            lost = loss(embeddings(made.model, self.batches), wanted)
            self.say(
                f"{count} blocks and {made.share:.0%} of multiply-accumulates removed: "
                f"{after:.2f} ms, 1 - cosine {lost:.4f}"
            )
            if self.goal.ms is None:
                lost /= max(self.before - after, 1e-3 * self.before)
                if made.share > (self.goal.share or 0.0) + 0.05:
                    break  # blocks alone remove more than the goal
            if best is None or lost < best[0]:
                best, worse = (lost, blocks, share), 0
            else:
                worse += 1
                if worse == _PATIENCE:
                    break
        if best is None:
            raise RecipeError(refused)
        return best[1], best[2]

    def _candidate(self, blocks: list[Block]) -> tuple[Pruned, float]:
        """A network without these blocks that meets the goal, and the share removed."""
        shorter: Shorter | None = None
        if blocks:
            shorter = shorten(self.model, blocks, self.some, seed=self.seed)
        base = self.model if shorter is None else shorter.model
        importance = str(self.options.get("importance", "taylor"))
        options = {
            **self.options,
            "shorter": shorter,
            "scores": scores_of(base, self.some, importance, seed=self.seed),
        }
        if self.goal.ms is None:
            assert self.goal.share is not None
            share = self.goal.share
            return prune(self.model, self.some, share, rounds=_ROUNDS, **options), share
        goal, options["rounds"] = self.goal.ms, _ROUNDS
        share = least_share(self.model, self.some, goal, self.measure, **options)
        made, _ = reach(self.model, self.some, goal, share, self.measure, **options)
        return made, made.share
