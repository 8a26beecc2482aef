"""The goal of pruning: a share of the multiply-accumulates to remove, or a time to reach."""

from __future__ import annotations

import math
from dataclasses import dataclass

from efquantface.errors import RecipeError


@dataclass(frozen=True)
class PruneGoal:
    """A share or a time; the other is None.

    Attributes:
        share: of the multiply-accumulates to remove, between 0 and 1.
        ms: milliseconds for one crop on one thread of this machine.
    """

    share: float | None = None
    ms: float | None = None

    @classmethod
    def parse(cls, value: float | str) -> PruneGoal:
        """Read ``0.5`` or ``"2.5ms"``.

        Raises:
            RecipeError: ``value`` is neither.
        """
        text = str(value).strip()
        timed = text.endswith("ms")
        try:
            number = float(text.removesuffix("ms"))
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf or (number >= 1 and not timed):
            raise RecipeError(
                f"prune {value}: give the share of multiply-accumulates to remove, between 0 and 1, "
                "or the time of one crop, such as 2.5ms"
            )
        return cls(ms=number) if timed else cls(share=number)


@dataclass(frozen=True)
class BlockPrice:
    """A residual block that could be removed.

    Attributes:
        name: of its sum.
        ms: saved without it.
        loss: mean 1 - cosine of the embedding without this block alone, the remaining layers fitted.
        gone: whether it was removed.
    """

    name: str
    ms: float
    loss: float
    gone: bool


@dataclass(frozen=True)
class Latency:
    """The goal and the measured times, in ms for one crop on one thread in ONNX Runtime.

    Attributes:
        goal: the time asked for; None if a share was asked for and was chosen by time.
        before: of the network that is not pruned, as a student.
        after: of the pruned network, as a student.
        blocks: all that could be removed; empty if only channels were tried.
    """

    goal: float | None
    before: float
    after: float
    blocks: tuple[BlockPrice, ...] = ()
