"""Which channels go, over all layers at once, so that a share of the multiply-accumulates goes."""

from __future__ import annotations

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
    """Multiply-accumulates as a function of the channels that groups have left.

    Attributes:
        each: of every layer (name, channels in, channels out, factor): factor times both counts, or
            times one for a depthwise layer, where the group in and out is the same.
        fixed: what no group's channels change: products of two activations.
    """

    each: list[tuple[str | int, str | int, int, float]] = field(default_factory=list)
    fixed: float = 0.0

    @classmethod
    def of(cls, gm: fx.GraphModule, groups: list[ChannelGroup], size: tuple[int, int]) -> Cost:
        """The cost of a float graph over crops of ``size``."""
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
        """Multiply-accumulates with so many channels in each group."""
        return self.fixed + sum(self._layer(layer, counts) for layer in self.each)

    def saved(self, counts: dict[str, int], group: str, fewer: int) -> float:
        """What ``fewer`` channels of a group save."""
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

    ``round_to`` channels of one group go at a time, those that cost least for each
    multiply-accumulate that they save, until the goal is reached.

    Args:
        scores: (C,) of each group's channels.
        cost: of the network.
        goal: multiply-accumulates.
        round_to: groups keep a multiple of so many channels (what integer kernels like).
        floor: share of a group's original channels that stays.
        sizes: original sizes of the groups, where some channels are gone already.

    Raises:
        RecipeError: the goal lies below what the floors leave; says how far it gets.
    """
    counts = {name: len(values) for name, values in scores.items()}
    least = {
        name: max(round_to, round_to * -(-int((sizes or counts)[name] * floor) // round_to))
        for name in counts
    }
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


def _give_back(
    removed: dict[str, list[int]],
    steps: dict[str, list[tuple[float, int]]],
    cost: Cost,
    counts: dict[str, int],
    goal: float,
) -> None:
    """Undo last steps, the dearest first, where the goal is met without them: the step that met it
    may have saved more than was missing."""
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
