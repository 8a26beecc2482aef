"""What pruning is asked for: a share of the multiply-accumulates to remove, or a time to reach."""

from __future__ import annotations

import math
from dataclasses import dataclass

from efquantface.errors import RecipeError


@dataclass(frozen=True)
class PruneGoal:
    """One of both.

    Attributes:
        share: of the multiply-accumulates that is removed, between 0 and 1.
        ms: milliseconds for one crop on one thread of this machine.
    """

    share: float | None = None
    ms: float | None = None

    @classmethod
    def parse(cls, value: float | str) -> PruneGoal:
        """Read ``0.5`` or ``"2.5ms"``.

        Raises:
            RecipeError: neither.
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
        ms: that go with it.
        loss: 1 - cosine of the embedding without it alone, what is left fitted in closed form.
        gone: whether it was removed.
    """

    name: str
    ms: float
    loss: float
    gone: bool


@dataclass(frozen=True)
class Latency:
    """A goal and what was measured, in ms for one crop on one thread in ONNX Runtime.

    Attributes:
        goal: asked for; None where a share was, and time decided what went.
        before: of the network as it is, in the student's form.
        after: of the pruned network.
        blocks: that could be removed, where blocks were looked at.
    """

    goal: float | None
    before: float
    after: float
    blocks: tuple[BlockPrice, ...] = ()
