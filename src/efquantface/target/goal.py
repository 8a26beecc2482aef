"""The target that a user sets for the student: a loss at a FAR, a file size, or a time."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from efquantface.errors import RecipeError
from efquantface.quantize.budget import parse_budget

_LOSS = re.compile(
    r"TAR@(?:FAR=)?(\d[\d.]*(?:e-?\d+)?)\s*[-\u2212]\s*(\d+(?:\.\d+)?)", re.IGNORECASE
)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*ms", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """A loss, a size or a time; the others are None.

    Attributes:
        far: the FAR at which losses are predicted. None: the strictest that the faces support, down
            to 1e-4.
        points: the largest loss of TAR at ``far``, in points.
        size: the largest file, as the user wrote it (600KB, 60%).
        ms: the longest time for one crop on one thread of this machine.
    """

    far: float | None = None
    points: float | None = None
    size: str | None = None
    ms: float | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``TAR@1e-4 -0.3``, ``600KB``, ``60%`` (of the 8-bit file) or ``2.5ms``.

        Raises:
            RecipeError: ``text`` is none of these, or its FAR is not between 0 and 1.

        >>> Target.parse("TAR@1e-4 -0.3")
        Target(far=0.0001, points=0.3, size=None, ms=None)
        >>> Target.parse("2.5ms").ms
        2.5
        """
        given = text.strip()
        if match := _LOSS.fullmatch(given):
            return cls._loss(given, match[1], match[2])
        if (match := _TIME.fullmatch(given)) and float(match[1]) > 0:
            return cls(ms=float(match[1]))
        try:
            parse_budget(given, 1.0)
        except RecipeError:
            raise RecipeError(
                f"target {text!r}: write a loss (TAR@1e-4 -0.3: at most 0.3 points of TAR at FAR "
                "1e-4), a file size (600KB, 60% of the 8-bit file) or a time (2.5ms)"
            ) from None
        return cls(size=given)

    @classmethod
    def _loss(cls, text: str, far: str, points: str) -> Target:
        try:
            rate = float(far)
        except ValueError:
            rate = math.nan
        if not 0 < rate < 1:
            raise RecipeError(f"target {text!r}: FAR {far} lies between 0 and 1, such as 1e-4")
        return cls(far=rate, points=float(points))

    def describe(self) -> str:
        """The target in words.

        >>> Target.parse("TAR@1e-4 -0.3").describe()
        'at most 0.3 points of TAR at FAR 0.0001'
        """
        if self.points is not None:
            return f"at most {self.points:g} points of TAR at FAR {self.far:g}"
        return f"at most {self.size}" if self.size else f"at most {self.ms:g} ms a crop"
