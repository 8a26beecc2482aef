"""How much to prune so that the student takes a wanted time on this machine.

Multiply-accumulates tell little of time: small layers cost calls, integer kernels like some channel
counts better than others. So candidates are exported as they would be delivered, and timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from efquantface.errors import RecipeError
from efquantface.graph.macs import macs
from efquantface.graph.model import FaceModel
from efquantface.pipeline.clock import Measure
from efquantface.prune.goal import Latency
from efquantface.prune.prune import Pruned, prune, scores_of
from efquantface.prune.shorter import Shorter

_TRIES = 7
_MOST = 0.97  # more than any floor leaves
_NEAR = 0.97  # of the goal: no need to look for a network that takes longer


def prune_to(
    model: FaceModel,
    batches: list[Tensor],
    goal: float,
    measure: Measure,
    *,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda *_: None,
    **options: Any,
) -> tuple[Pruned, Latency]:
    """Prune as little as brings the student to ``goal`` ms, channels alone.

    Args:
        model, batches, progress: as for :func:`~efquantface.prune.prune.prune`.
        goal: ms for one crop on one thread.
        measure: ms of a float model's student (:class:`~efquantface.pipeline.clock.Clock`), asked for
            ``model`` first.
        say: told of every candidate.
        options: ``importance``, ``round_to`` and ``seed`` of ``prune``.

    Raises:
        RecipeError: the network is that fast already, or the smallest one is not.
    """
    before = time_before(model, goal, measure, say)
    importance, seed = options.get("importance", "taylor"), options.get("seed", 0)
    options["scores"] = scores_of(model, batches, importance, seed=seed)
    share = least_share(model, batches, goal, measure, say=say, **options)
    made, after = reach(model, batches, goal, share, measure, say=say, progress=progress, **options)
    return made, Latency(goal, before, after)


def time_before(
    model: FaceModel, goal: float | None, measure: Measure, say: Callable[[str], None]
) -> float:
    """Ms of the network as it is.

    Raises:
        RecipeError: they meet the goal.
    """
    before = measure(model)
    asked = "" if goal is None else f", the goal is {goal:g} ms"
    say(f"not pruned: {before:.2f} ms a crop on one thread{asked}")
    if goal is not None and before <= goal:
        raise RecipeError(f"--prune {goal:g}ms: {before:.2f} ms already, nothing has to be pruned")
    return before


def least_share(
    model: FaceModel,
    batches: list[Tensor],
    goal: float,
    measure: Measure,
    *,
    say: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> float:
    """The least share of multiply-accumulates without which the student takes ``goal`` ms.

    Args:
        options: of :func:`~efquantface.prune.prune.prune`.

    Raises:
        RecipeError: no share does.
    """
    shorter: Shorter | None = options.get("shorter")
    least = 0.0
    if shorter is not None:
        size = (model.contract.height, model.contract.width)
        least = 1 - float(macs(shorter.model.graph, *size)) / float(macs(model.graph, *size))
        if measure(shorter.model) <= goal:
            return least

    def candidate(share: float) -> float:
        """Time with this share removed; NaN where floors do not allow it."""
        try:
            once = {**options, "rounds": 1, "recover": False}
            made = prune(model, batches, share, **once)
        except RecipeError:
            return float("nan")
        found = measure(made.model)
        say(f"{made.share:.0%} of multiply-accumulates removed: {found:.2f} ms")
        return found

    return _search(candidate, goal, measure(model), least)


def reach(
    model: FaceModel,
    batches: list[Tensor],
    goal: float,
    share: float,
    measure: Measure,
    *,
    say: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> tuple[Pruned, float]:
    """Prune by ``share``, and by more where that is not fast enough yet; gives the ms, too.

    Raises:
        RecipeError: no share is.
    """
    while True:
        pruned = prune(model, batches, share, **options)
        after = measure(pruned.model)
        say(f"pruned {pruned.share:.0%}: {after:.2f} ms")
        if after <= goal:
            return pruned, after
        # other channels went in the second round, or the machine was busy: a little more
        share += 0.02
        if share >= _MOST:
            raise RecipeError(f"--prune {goal:g}ms: got to {after:.2f} ms, not further")


def _search(candidate: Callable[[float], float], goal: float, before: float, least: float) -> float:
    """The least share that meets the goal, by halving the interval it lies in."""
    low, high = least, _MOST
    fastest, reached = before, least
    met: float | None = None
    for _ in range(_TRIES):
        share = (low + high) / 2
        found = candidate(share)
        if np.isnan(found):
            high = share
            continue
        if found < fastest:
            fastest, reached = found, share
        if found <= goal:
            high, met = share, share
            if found >= _NEAR * goal:
                break
        else:
            low = share
    if met is None:
        raise RecipeError(
            f"--prune {goal:g}ms: pruning got from {before:.2f} to {fastest:.2f} ms ({reached:.0%} of "
            "multiply-accumulates removed), then every group of channels was at its floor; combine "
            "it with fewer bits, or ask for more ms"
        )
    return met
