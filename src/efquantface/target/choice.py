"""The ways of compressing tried for a target, and the one chosen."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from efquantface.target.front import Candidate, Way, front


@dataclass(frozen=True)
class Choice:
    """The ways of compressing tried for a target, and the one chosen.

    Attributes:
        target: as the user wrote it.
        far: FAR of the predicted losses.
        candidates: all that were tried.
        chosen: one of them.
        faces: number of faces on which losses were predicted.
    """

    target: str
    far: float
    candidates: list[Candidate]
    chosen: Candidate
    faces: int

    @property
    def front(self) -> list[Candidate]:
        """The candidates that no other beats (:func:`~efquantface.target.front.front`)."""
        return front(self.candidates)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, which :meth:`read` takes."""
        return {**dataclasses.asdict(self), "front": [c.way.name for c in self.front]}

    @classmethod
    def read(cls, text: str) -> Choice:
        """Read a choice from JSON.

        Raises:
            ValueError, KeyError, TypeError: ``text`` is no choice.
        """
        found = json.loads(text)
        made = [_candidate(c) for c in found["candidates"]]
        chosen = _candidate(found["chosen"])
        return cls(found["target"], float(found["far"]), made, chosen, int(found["faces"]))

    def lines(self) -> list[str]:
        """Lines for the log: all candidates; those of the front and the chosen one are marked."""
        best = self.front
        shown = [f"{'':2}{'':24}{'MB':>7}{'ms':>7}{'1 - cosine':>12}{'trained':>9}{'loss':>7}"]
        for one in self.candidates:
            mark = ">" if one == self.chosen else "*" if one in best else " "
            shown.append(
                f"{mark} {one.way.name:24}{one.size / 1e6:7.2f}{one.ms:7.2f}{one.before:12.4f}"
                f"{one.after:9.4f}{one.loss:+7.2f}"
            )
        shown.append(
            f"loss: points of TAR at FAR {self.far:g} as predicted on {self.faces:,} faces; "
            "* no other one is better in all, > chosen"
        )
        return shown


def _candidate(found: dict[str, Any]) -> Candidate:
    values = {f.name: found[f.name] for f in dataclasses.fields(Candidate)}
    return Candidate(**{**values, "way": Way(**values["way"])})
