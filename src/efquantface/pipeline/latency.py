"""Prunes a network until its student meets a wanted time on this machine.

Multiply-accumulates predict time badly. Each layer costs a call, however small it is. Integer kernels
are faster at some numbers of channels than at others. So candidates are exported and timed.
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
_MOST = 0.97  # a larger share than any floor allows
_NEAR = 0.97  # share of the goal; a network that takes so long is accepted


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
    """Prune the fewest channels for which the student takes at most ``goal`` ms.

    Args:
        model, batches, progress: as for :func:`~efquantface.prune.prune.prune`.
        goal: ms for one crop on one thread.
        measure: ms of a float model's student (:class:`~efquantface.pipeline.clock.Clock`). It is called
            with ``model`` first.
        say: called with a line on every candidate.
        options: ``importance``, ``round_to`` and ``seed`` of ``prune``.

    Returns:
        The pruned network, and the times.

    Raises:
        RecipeError: the network already meets the goal, or cannot be pruned to it.
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
    """Ms of the student of the network that is not pruned.

    Raises:
        RecipeError: it already meets the goal.
    """
    before = measure(model)
    asked = "" if goal is None else f", the goal is {goal:g} ms"
    say(f"not pruned: {before:.2f} ms a crop on one thread{asked}")
    if goal is not None and before <= goal:
        raise RecipeError(f"--prune {goal:g}ms: {before:.2f} ms already, nothing to prune")
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
    """The least share of multiply-accumulates to remove so that the student takes at most ``goal`` ms.

    Args:
        model, batches: as for :func:`~efquantface.prune.prune.prune`.
        goal: ms for one crop on one thread.
        measure: ms of a float model's student.
        say: called with a line on every candidate.
        options: of ``prune``.

    Raises:
        RecipeError: no share is enough.
    """
    shorter: Shorter | None = options.get("shorter")
    least = 0.0
    if shorter is not None:
        size = (model.contract.height, model.contract.width)
        least = 1 - float(macs(shorter.model.graph, *size)) / float(macs(model.graph, *size))
        if measure(shorter.model) <= goal:
            return least

    def candidate(share: float) -> float:
        """Ms with this share removed; NaN if the floors do not allow it."""
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
    """Prune by ``share``, and by more if the student takes more than ``goal`` ms.

    Args:
        model, batches, share: as for :func:`~efquantface.prune.prune.prune`.
        goal: ms for one crop on one thread.
        measure: ms of a float model's student.
        say: called with a line on every candidate.
        options: of ``prune``.

    Returns:
        The pruned network, and its ms.

    Raises:
        RecipeError: no share is enough.
    """
    while True:
        pruned = prune(model, batches, share, **options)
        after = measure(pruned.model)
        say(f"pruned {pruned.share:.0%}: {after:.2f} ms")
        if after <= goal:
            return pruned, after
        # the last rounds removed other channels, or the machine was busy: remove a little more
        share += 0.02
        if share >= _MOST:
            raise RecipeError(f"--prune {goal:g}ms: reached {after:.2f} ms only; ask for more ms")


def _search(candidate: Callable[[float], float], goal: float, before: float, least: float) -> float:
    """The least share that meets the goal, by bisection."""
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
            f"--prune {goal:g}ms: pruning reached {fastest:.2f} ms from {before:.2f} ms ({reached:.0%} "
            "of multiply-accumulates removed), then every group of channels was at its floor; combine "
            "it with fewer bits, or ask for more ms"
        )
    return met
