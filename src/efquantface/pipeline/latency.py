"""How much to prune so that the student takes a wanted time on this machine.

Multiply-accumulates tell little of time: small layers cost calls, integer kernels like some channel
counts better than others. So candidates are exported as they would be delivered, and timed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from efquantface.embedding.benchmark import benchmark
from efquantface.embedding.embedder import Embedder
from efquantface.errors import RecipeError
from efquantface.export.onnx_writer import to_onnx
from efquantface.graph.model import FaceModel
from efquantface.prune.goal import Latency
from efquantface.prune.prune import Pruned, prune, scores_of
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme
from efquantface.runtime.sessions import onnxruntime_session, run_onnxruntime

_ROUNDS = 25
_TRIES = 7
_MOST = 0.97  # more than any floor leaves
_NEAR = 0.97  # of the goal: no need to look for a network that takes longer
_CROPS = 4


Measure = Callable[[FaceModel], float]


class Clock:
    """Ms of one crop on one thread, in ONNX Runtime, of a float model's student.

    The first model is timed by itself. Later ones are timed in turns with it and stand to it by
    the median of their ratios, so that other work on the machine slows both.
    """

    def __init__(self, scheme: Scheme | None, crops: Tensor) -> None:
        """``scheme``: None where students stay float; ``crops`` (N,3,H,W): ranges are set on them."""
        self.scheme, self.crops = scheme, crops
        self.first: tuple[Embedder, float] | None = None

    def __call__(self, model: FaceModel) -> float:
        if self.scheme is not None:
            model = quantize(model, self.scheme)
            set_ranges(model.graph, [self.crops])
        session = onnxruntime_session(to_onnx(model).SerializeToString(), 1, "cpu")
        embedder = Embedder(model.contract, "student", "onnxruntime", run_onnxruntime(session))
        if self.first is None:
            (timing,) = benchmark([("first", embedder)], batches=(1,), rounds=3 * _ROUNDS)
            self.first = embedder, timing.median_ms
            return timing.median_ms
        first, ms = self.first
        models = [("first", first), ("student", embedder)]
        return ms / benchmark(models, batches=(1,), rounds=_ROUNDS)[1].ratio


def prune_to(
    model: FaceModel,
    batches: list[Tensor],
    goal: float,
    scheme: Scheme | None,
    *,
    importance: str = "taylor",
    round_to: int = 8,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda *_: None,
    measure: Measure | None = None,
) -> tuple[Pruned, Latency]:
    """Prune as little as brings the student to ``goal`` ms.

    Args:
        model, batches, importance, round_to, seed, progress: as for
            :func:`~efquantface.prune.prune.prune`.
        goal: ms for one crop on one thread.
        scheme: bits of the student; None where it stays float.
        say: told of every candidate.
        measure: ms of a float model's student, asked for ``model`` first; a :class:`Clock` where None.

    Raises:
        RecipeError: the network is that fast already, or the smallest one is not.
    """
    timed = measure or Clock(scheme, batches[0][:_CROPS])
    before = timed(model)
    say(f"not pruned: {before:.2f} ms a crop on one thread, the goal is {goal:g} ms")
    if before <= goal:
        raise RecipeError(f"--prune {goal:g}ms: {before:.2f} ms already, nothing has to be pruned")
    first = scores_of(model, batches, importance, seed=seed)

    def candidate(share: float) -> float:
        """Time with this share removed; NaN where floors do not allow it."""
        try:
            made = prune(
                model, batches, share, importance=importance, round_to=round_to,
                rounds=1, recover=False, seed=seed, scores=first,
            )  # fmt: skip
        except RecipeError:
            return float("nan")
        found = timed(made.model)
        say(f"{made.share:.0%} of multiply-accumulates removed: {found:.2f} ms")
        return found

    share = _search(candidate, goal, before)
    while True:
        pruned = prune(
            model, batches, share, importance=importance, round_to=round_to, seed=seed,
            progress=progress, scores=first,
        )  # fmt: skip
        after = timed(pruned.model)
        say(f"pruned {pruned.share:.0%}: {after:.2f} ms")
        if after <= goal:
            return pruned, Latency(goal, before, after)
        # other channels went in the second round, or the machine was busy: a little more
        share += 0.02
        if share >= _MOST:
            raise RecipeError(f"--prune {goal:g}ms: got to {after:.2f} ms, not further")


def _search(candidate: Callable[[float], float], goal: float, before: float) -> float:
    """The least share that meets the goal, by halving the interval it lies in."""
    low, high = 0.0, _MOST
    fastest, reached = before, 0.0
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
