"""Pruning: removes a share of a float network's multiply-accumulates, first blocks, then channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from efquantface.errors import RecipeError
from efquantface.graph.graph import outputs_of
from efquantface.graph.macs import macs
from efquantface.graph.model import FaceModel
from efquantface.prune.allocate import Cost, choose, coarsest
from efquantface.prune.channels import ChannelGroup, Channels
from efquantface.prune.importance import IMPORTANCES, magnitude, taylor
from efquantface.prune.refit import refit
from efquantface.prune.shortcuts import without_zero_channels
from efquantface.prune.shorter import Shorter

_ROUNDS = 8  # each round scores and fits again: both depend on the channels removed so far


@dataclass(frozen=True)
class Pruned:
    """A pruned network.

    Attributes:
        model: the smaller float network.
        macs_before, macs: multiply-accumulates of one crop, before and after.
        layers: (name, output channels before, after) of each layer, in order.
        whole: layers whose channels all stay, with the reason.
        round_to: channels left are a multiple of it, in layers that have fewer.
        blocks: names of the removed residual blocks; their layers have 0 channels after.
    """

    model: FaceModel
    macs_before: float
    macs: float
    layers: list[tuple[str, int, int]]
    whole: dict[str, str]
    round_to: int
    blocks: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Share of the multiply-accumulates that was removed."""
        return 1 - self.macs / self.macs_before

    def as_dict(self) -> dict[str, Any]:
        """Plain data for metrics.json."""
        return {
            "macs_before": self.macs_before,
            "macs": self.macs,
            "layers": self.layers,
            "whole": self.whole,
            "round_to": self.round_to,
            "blocks": list(self.blocks),
        }

    def describe(self) -> list[str]:
        """Lines for the log."""
        fewer = sum(0 < after < before for _, before, after in self.layers)
        lines = [
            f"pruned {self.share:.0%} of {self.macs_before / 1e6:,.0f} million "
            f"multiply-accumulates: {fewer} of {len(self.layers)} layers have fewer channels, "
            f"in multiples of {self.round_to}"
        ]
        if self.blocks:
            some = "block" if len(self.blocks) == 1 else "blocks"
            lines.append(f"{len(self.blocks)} residual {some} removed: {', '.join(self.blocks)}")
        reasons: dict[str, list[str]] = {}
        for name, why in self.whole.items():
            reasons.setdefault(why, []).append(name)
        for why, names in reasons.items():
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            lines.append(f"left whole, because {why}: {shown}")
        return lines


def prune(
    model: FaceModel,
    batches: list[Tensor],
    share: float,
    *,
    importance: str = "taylor",
    round_to: int | tuple[int, ...] = 8,
    floor: float = 0.25,
    rounds: int = _ROUNDS,
    recover: bool = True,
    seed: int = 0,
    scores: dict[str, Tensor] | None = None,
    shorter: Shorter | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Pruned:
    """A copy of a float model without its least important channels.

    Args:
        model: canonical float model.
        batches: uint8 pixels (N,3,H,W) of a few hundred crops.
        share: of the multiply-accumulates to remove, above 0 and below 1.
        importance: ``taylor`` (:func:`~efquantface.prune.importance.taylor`) or ``magnitude``.
        round_to: channels left in a group are a multiple of it; of several numbers, of the first with
            which the share can be reached.
        floor: share of its channels that every group keeps, 0 to 1.
        rounds: channels are removed in this many steps, and scored again before each.
        recover: fit the layers that read removed channels to the teacher's outputs, in closed form.
        seed: of random directions and positions.
        scores: :func:`scores_of` the model, or of ``shorter`` if given, if they are known.
        shorter: the model without some blocks; channels are removed for the rest of the share.
        progress: called with (done, total).

    Raises:
        RecipeError: ``share`` is not between 0 and 1, or cannot be reached.
        ModelFileError: torch-pruning cannot follow the network's channels.
    """
    if not 0 < share < 1:
        raise RecipeError(f"--prune {share:g}: the share of multiply-accumulates to remove, 0 to 1")
    size = (model.contract.height, model.contract.width)
    whole = without_zero_channels(model.graph, *size)
    channels = _channels(model if shorter is None else shorter.model)
    sizes = {group.name: group.size for group in channels.groups}
    before = float(macs(model.graph, *size))
    graph, groups = channels.original, channels.groups
    left = before if shorter is None else float(macs(graph, *size))
    lost = 1 - left / before
    multiples = round_to if isinstance(round_to, tuple) else (round_to,)
    multiple = coarsest(multiples, Cost.of(graph, groups, size), sizes, before * (1 - share), floor)
    for turn in range(rounds if share > lost else 0):
        known = scores if turn == 0 else None
        score = known or _score(graph, groups, batches, importance, seed)
        cost = Cost.of(graph, groups, size)
        goal = before * (1 - lost - (share - lost) * (turn + 1) / rounds)
        removed = choose(score, cost, goal, round_to=multiple, floor=floor, sizes=sizes)
        for group in groups:
            channels.remove(group, removed[group.name])
        groups = [dataclasses.replace(g, size=g.size - len(removed[g.name])) for g in groups]
        graph = channels.finish()
        left = cost.total({group.name: group.size for group in groups})
        if recover:
            stands_for = None if shorter is None else shorter.stands_for
            refit(graph, whole, batches, channels.kept, stands_for=stands_for, seed=seed)
            channels.take(graph)
        progress(turn + 1, rounds)
    sizes_of = _sizes(whole, graph)
    had = {name: count for name, count, now in sizes_of if 0 < now < count}
    pruned = dataclasses.replace(model, graph=graph, notes=list(model.notes), channels=had)
    blocks = () if shorter is None else shorter.blocks
    return Pruned(pruned, before, left, sizes_of, channels.whole, multiple, blocks)


def scores_of(
    model: FaceModel, batches: list[Tensor], importance: str, *, seed: int = 0
) -> dict[str, Tensor]:
    """Importance (C,) of the channels, by channel group.

    Args:
        model: canonical float model.
        batches: uint8 pixels (N,3,H,W).
        importance: ``taylor`` or ``magnitude``.
        seed: of random directions.

    Raises:
        RecipeError: ``importance`` is unknown, or no channels can be removed.
        ModelFileError: torch-pruning cannot follow the network's channels.
    """
    channels = _channels(model)
    return _score(channels.original, channels.groups, batches, importance, seed)


def _channels(model: FaceModel) -> Channels:
    channels = Channels(model.graph, model.contract.height, model.contract.width)
    if not channels.groups:
        reasons = ", ".join(f"{name} ({why})" for name, why in channels.whole.items())
        raise RecipeError(f"no channels of this network can be removed: {reasons}")
    return channels


def _score(
    graph: fx.GraphModule,
    groups: list[ChannelGroup],
    batches: list[Tensor],
    importance: str,
    seed: int,
) -> dict[str, Tensor]:
    if importance not in IMPORTANCES:
        raise RecipeError(f"importance {importance!r}: choose from {', '.join(IMPORTANCES)}")
    if importance == "magnitude":
        return magnitude(graph, groups)
    return taylor(graph, groups, batches, seed=seed)


def _sizes(graph: nn.Module, pruned: nn.Module) -> list[tuple[str, int, int]]:
    after = dict(pruned.named_modules())
    found = []
    for name, module in graph.named_modules():
        before, left = outputs_of(module), outputs_of(after[name]) if name in after else 0
        if before is not None and left is not None:
            found.append((name, before, left))
    return found
