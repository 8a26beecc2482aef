"""Ways of compressing a network: what each loses and saves, and which one meets a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from efquantface.errors import TargetError
from efquantface.quantize.budget import parse_budget
from efquantface.target.goal import Target


@dataclass(frozen=True)
class Way:
    """One way of compressing: settings of a recipe.

    Attributes:
        bits: of weights and activations.
        budget: of the file, as a share of the 8-bit file; None: all layers have ``bits``.
        prune: share of multiply-accumulates removed; None: nothing is pruned.
    """

    bits: str = "w8a8"
    budget: str | None = None
    prune: float | None = None

    @property
    def name(self) -> str:
        """As tables show it.

        >>> Way("w4a8", prune=0.25).name
        'w4a8, 25% pruned'
        """
        bits = self.bits if self.budget is None else f"{self.bits} within {self.budget}"
        return bits if self.prune is None else f"{bits}, {self.prune:.0%} pruned"


# no ways with fewer activation bits: they make no file smaller and no runtime faster
WAYS = (
    Way("w8a8"),
    Way("w6a8"),
    Way("w8a8", budget="67%"),
    Way("w4a8"),
    Way("w8a8", prune=0.1),
    Way("w8a8", prune=0.25),
    Way("w6a8", prune=0.25),
    Way("w4a8", prune=0.25),
    Way("w8a8", prune=0.5),
    Way("w4a8", prune=0.5),
)


@dataclass(frozen=True)
class Candidate:
    """A way that was tried without training.

    Attributes:
        way: its settings.
        size: bytes of the file.
        ms: for one crop on one thread of this machine, in ONNX Runtime.
        before: mean 1 - cosine to the teacher, before training.
        after: the same, predicted for the trained student.
        loss: points of TAR at the target's FAR, predicted for the trained student.
    """

    way: Way
    size: int
    ms: float
    before: float
    after: float
    loss: float


def front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that no other beats, by increasing loss.

    One beats another if it is no worse in size, time and loss, and better in one of them. Of equal ones
    the first is kept.
    """
    kept: list[Candidate] = []
    for one in sorted(candidates, key=_facts):
        if not any(_beats(other, one) for other in candidates) and all(
            _facts(one) != _facts(other) for other in kept
        ):
            kept.append(one)
    return kept


def choose(candidates: Sequence[Candidate], target: Target) -> Candidate:
    """The candidate to train.

    For a target loss it has the least product of size and time. For a target size or time it has the
    least loss.

    Args:
        candidates: the first has 8 bits; a target size in percent is of its file.
        target: of the user.

    Raises:
        TargetError: no candidate meets the target.
    """
    fitting = [c for c in candidates if _meets(c, target, candidates[0].size)]
    if fitting:
        if target.points is not None:
            return min(fitting, key=lambda c: (c.size * c.ms, c.loss))
        return min(fitting, key=lambda c: (c.loss, c.size * c.ms))
    if target.points is not None:
        best = min(candidates, key=lambda c: c.loss)
        told = f"the nearest, {best.way.name}, is predicted to lose {best.loss:.2f} points"
    elif target.ms is not None:
        best = min(candidates, key=lambda c: c.ms)
        told = f"the fastest, {best.way.name}, takes {best.ms:.2f} ms"
    else:
        best = min(candidates, key=lambda c: c.size)
        told = f"the smallest, {best.way.name}, has {best.size:,} bytes"
    raise TargetError(
        f"target {target.describe()}: out of reach, {told}; ask for no more than that"
    )


def _meets(one: Candidate, target: Target, full: int) -> bool:
    if target.points is not None:
        return one.loss <= target.points
    if target.ms is not None:
        return one.ms <= target.ms
    assert target.size is not None
    return one.size <= parse_budget(target.size, full)


def _facts(one: Candidate) -> tuple[float, int, float]:
    return one.loss, one.size, one.ms


def _beats(other: Candidate, one: Candidate) -> bool:
    pairs = list(zip(_facts(other), _facts(one), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
