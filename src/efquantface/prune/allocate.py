"""Chooses channels to remove, over all layers at once, for a wanted share of multiply-accumulates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from efquantface.errors import RecipeError
from efquantface.graph import ops
from efquantface.graph.graph import module_nodes, name_of, shapes
from efquantface.graph.macs import macs
from efquantface.prune.channels import ChannelGroup


@dataclass
class Cost:
    """Multiply-accumulates of a network as a function of the channels in each group.

    Attributes:
        each: (channels in, channels out, spread, factor) of each layer. Channels are a group's name or
            a fixed number. The layer's cost is the product of all four. A depthwise layer has 1 in.
        fixed: multiply-accumulates that no group changes: products of two activations.
    """

    each: list[tuple[str | int, str | int, int, float]] = field(default_factory=list)
    fixed: float = 0.0

    @classmethod
    def of(cls, gm: fx.GraphModule, groups: list[ChannelGroup], size: tuple[int, int]) -> Cost:
        """The cost of a float graph on crops of ``size`` (height, width)."""
        writes = {w: g.name for g in groups for w in (*g.writers, *g.depthwise)}
        reads = {r: (g.name, spread) for g in groups for r, spread in g.readers}
        found = shapes(gm, *size)
        cost = cls()
        for node, module in module_nodes(gm):
            name = name_of(node)
            if isinstance(module, ops.Conv2d):
                places = float(found[name][2] * found[name][3])
                kernel = module.kernel_size[0] * module.kernel_size[1]
                if module.groups == module.in_channels > 1:
                    own = writes.get(name, module.out_channels)
                    cost.each.append((1, own, 1, places * kernel))
                    continue
                inside = reads.get(name, (module.in_channels // module.groups, 1))
                outside = writes.get(name, module.out_channels)
                cost.each.append((inside[0], outside, inside[1], places * kernel))
            elif isinstance(module, ops.Linear):
                places = float(torch.Size(found[name][1:-1]).numel())
                inside = reads.get(name, (module.in_features, 1))
                outside = writes.get(name, module.out_features)
                cost.each.append((inside[0], outside, inside[1], places))
        cost.fixed = macs(gm, *size) - cost.total({group.name: group.size for group in groups})
        return cost

    def total(self, counts: dict[str, int]) -> float:
        """Multiply-accumulates with ``counts`` channels in each group."""
        return self.fixed + sum(self._layer(layer, counts) for layer in self.each)

    def saved(self, counts: dict[str, int], group: str, fewer: int) -> float:
        """Multiply-accumulates saved by removing ``fewer`` channels of a group."""
        less = {**counts, group: counts[group] - fewer}
        touched = [layer for layer in self.each if group in layer[:2]]
        return sum(self._layer(layer, counts) - self._layer(layer, less) for layer in touched)

    @staticmethod
    def _layer(layer: tuple[str | int, str | int, int, float], counts: dict[str, int]) -> float:
        inside, outside, spread, factor = layer
        a = counts[inside] if isinstance(inside, str) else inside
        b = counts[outside] if isinstance(outside, str) else outside
        return factor * spread * a * b


def choose(
    scores: dict[str, Tensor],
    cost: Cost,
    goal: float,
    *,
    round_to: int = 8,
    floor: float = 0.25,
    sizes: dict[str, int] | None = None,
) -> dict[str, list[int]]:
    """Channels to remove from each group so that at most ``goal`` multiply-accumulates are left.

    Each step removes ``round_to`` channels of one group: those with the least loss for each
    multiply-accumulate saved. Steps go on until the goal is reached.

    Args:
        scores: importance (C,) of the channels of each group.
        cost: of the network.
        goal: multiply-accumulates.
        round_to: channels left in a group are a multiple of it; integer kernels are faster then.
        floor: share of a group's original channels that stays, 0 to 1.
        sizes: original sizes of the groups, if some channels are removed already.

    Returns:
        By group, the numbers of its channels to remove, as in ``scores``.

    Raises:
        RecipeError: the floors leave more than the goal; the message says how much.
    """
    counts = {name: len(values) for name, values in scores.items()}
    least = floors(sizes or counts, round_to, floor)
    orders = {name: torch.argsort(values).tolist() for name, values in scores.items()}
    removed: dict[str, list[int]] = {name: [] for name in scores}
    steps: dict[str, list[tuple[float, int]]] = {name: [] for name in scores}
    total = cost.total(counts)
    while total > goal:
        best: tuple[float, str, int, float] | None = None
        for name, count in counts.items():
            fewer = count % round_to or round_to  # the first step makes it a multiple
            if count - fewer < least[name]:
                continue
            start = len(removed[name])
            loss = float(scores[name][orders[name][start : start + fewer]].sum())
            saved = cost.saved(counts, name, fewer)
            if best is None or loss * best[3] < best[0] * saved:
                best = (loss, name, fewer, saved)
        if best is None:
            raise RecipeError(
                f"pruning gets to {total / 1e6:,.0f} million multiply-accumulates, not to "
                f"{goal / 1e6:,.0f}: every group of channels is at its floor ({floor:.0%}); "
                "prune less, or combine it with fewer bits"
            )
        loss, name, fewer, saved = best
        start = len(removed[name])
        removed[name] += orders[name][start : start + fewer]
        counts[name] -= fewer
        total -= saved
        steps[name].append((loss, fewer))
    _give_back(removed, steps, cost, counts, goal)
    return removed


def floors(sizes: dict[str, int], round_to: int, floor: float) -> dict[str, int]:
    """The fewest channels that removing leaves in each group; smaller groups stay whole.

    Args:
        sizes: original sizes of the groups.
        round_to, floor: see :func:`choose`.
    """
    return {
        name: max(round_to, round_to * -(-int(size * floor) // round_to))
        for name, size in sizes.items()
    }


def coarsest(
    multiples: Sequence[int], cost: Cost, sizes: dict[str, int], goal: float, floor: float
) -> int:
    """The first of ``multiples`` with which ``goal`` multiply-accumulates can be reached, or the last.

    Args:
        multiples: for ``round_to`` of :func:`choose`, the coarsest first.
        cost: of the network.
        sizes: of the groups of the whole network.
        goal: multiply-accumulates.
        floor: see :func:`choose`.
    """
    for multiple in multiples:
        least = floors(sizes, multiple, floor)
        if cost.total({name: min(size, least[name]) for name, size in sizes.items()}) <= goal:
            return multiple
    return multiples[-1]


def _give_back(
    removed: dict[str, list[int]],
    steps: dict[str, list[tuple[float, int]]],
    cost: Cost,
    counts: dict[str, int],
    goal: float,
) -> None:
    """Undo steps that the goal does not need, those with the largest loss first.

    The step that reached the goal may have saved more than was missing.
    """
    total = cost.total(counts)
    while True:
        fitting = []
        for name, done in steps.items():
            if done:
                back = {**counts, name: counts[name] + done[-1][1]}
                more = cost.saved(back, name, done[-1][1])
                if total + more <= goal:
                    fitting.append((done[-1][0], name, more))
        if not fitting:
            return
        _, name, more = max(fitting)
        _, fewer = steps[name].pop()
        del removed[name][len(removed[name]) - fewer :]
        counts[name] += fewer
        total += more
