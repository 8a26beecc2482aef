"""A new model under an existing gallery: how scores move, thresholds of equal FAR, changed decisions.

The same pairs of faces have three kinds of scores: both faces embedded by the old model, both by the new
one, and mixed, with the enrolment by the old model and the probe by the new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from efquantface.errors import EvaluationError
from efquantface.evaluation.allpairs import AllPairs, score_all_pairs
from efquantface.evaluation.metrics import MIN_FALSE_ACCEPTS, Scores, supported_fars
from efquantface.evaluation.tally import Block, Case, Example, Move, Tally
from efquantface.interfaces import Progress
from efquantface.rows import unit

Rows = npt.NDArray[np.float32]
FAR = 1e-4  # where no threshold is given
_KEPT, _KEPT_UNNAMED = 1e-2, 0.2  # the largest shares of pairs that a threshold may accept
_BLOCK = 2048


@dataclass(frozen=True)
class Succession:
    """All that :func:`compare` finds.

    Attributes:
        images, people, genuine, impostor: counts of the sample; without identities every image counts
            as one of the people.
        labelled: whether identities are known. If not, the pairs that the old model accepts stand for
            genuine pairs, and all pairs for impostor pairs.
        threshold, far, frr: the old model's threshold, and its FAR and FRR there.
        thresholds: the cosines that accept as many impostor pairs: ``new``, ``mixed``, and ``both`` (the
            larger of the two) for a gallery with old and new enrolments.
        moves, cases, examples: see their classes; none are mixed where D of the models differs.
    """

    images: int
    people: int
    labelled: bool
    genuine: int
    impostor: int
    threshold: float
    far: float
    frr: float
    thresholds: dict[str, float]
    moves: list[Move]
    cases: list[Case]
    examples: list[Example] = field(default_factory=list)

    def case(self, name: str) -> Case | None:
        """The case of that name, where there is one."""
        return next((c for c in self.cases if c.name == name), None)


def compare(
    old: Rows,
    new: Rows,
    identities: npt.NDArray[np.int64],
    *,
    far: float | None = None,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> Succession:
    """Compare two models on all pairs of a sample.

    Args:
        old, new: embeddings float32 (N,D) of the same faces, of any length; D may differ.
        identities: int64 (N,) identity numbers; -1 for all where they are not known.
        far: the FAR at which thresholds are compared; None takes 1e-4, or the least that the sample
            supports.
        threshold: the old model's deployed threshold, a cosine, in place of ``far``.
        progress: called with (done, total).

    Raises:
        EvaluationError: there are too few pairs, the threshold accepts too many or no pairs, or neither
            identities nor a threshold are given.
    """
    rows = {"old": unit(old, "old model"), "new": unit(new, "new model")}
    mixable = old.shape[1] == new.shape[1]
    labelled = bool((identities >= 0).all())
    who = np.unique(identities, return_inverse=True)[1] if labelled else np.arange(len(old))
    if not labelled and threshold is None:
        raise EvaluationError(
            "the sample does not say who is who; give the cosine that you deploy: --threshold 0.4"
        )
    kept = _KEPT if labelled else _KEPT_UNNAMED
    found = {
        name: score_all_pairs(r, identities, progress, kept_far=kept) for name, r in rows.items()
    }
    if mixable:
        found["mixed"] = score_all_pairs(rows["old"], identities, progress, rows["new"], kept)
    first = found["old"]
    if first.impostors == 0 or (labelled and not len(first.genuine)):
        raise EvaluationError(
            "the sample needs two people, and two images of one person; give more of your own faces"
        )
    cuts = _thresholds(found, far, threshold)
    accepted = int((first.top_impostors >= cuts["old"]).sum())
    if not labelled and not accepted:
        raise EvaluationError(f"no pair of the sample reaches {cuts['old']:g}; give more faces")
    tally = Tally(cuts, who, labelled, mixable)
    for block in _blocks(rows, mixable):
        tally.add(block)
    genuine = len(first.genuine) if labelled else accepted
    cases = [tally.case(*case, genuine, first.impostors) for case in tally.cases]
    frr = float((first.genuine < cuts["old"]).mean()) if labelled else 0.0
    return Succession(
        len(old),
        int(who.max()) + 1,
        labelled,
        genuine,
        first.impostors,
        cuts["old"],
        accepted / first.impostors,
        frr,
        {name: value for name, value in cuts.items() if name != "old"},
        tally.moves(),
        cases,
        tally.examples(),
    )


def _thresholds(
    found: dict[str, AllPairs], far: float | None, threshold: float | None
) -> dict[str, float]:
    """The old threshold, and the others that accept as many impostor pairs."""
    first = found["old"]
    total = first.impostors
    if threshold is not None:
        top = first.top_impostors
        if len(top) < total and threshold <= top.min():
            raise EvaluationError(
                f"--threshold {threshold:g} accepts more than {first.kept_far:.0%} of the impostor "
                "pairs of OLD; give a larger one"
            )
        share = int((top >= threshold).sum()) / total
    else:
        supported = [f for f in supported_fars(total) if f <= first.kept_far]
        if far is None and supported:
            far = max(FAR, supported[-1])
        if far is None or (far not in supported and far * total < MIN_FALSE_ACCEPTS):
            wanted = FAR if far is None else far
            raise EvaluationError(
                f"FAR {wanted:g} needs {int(np.ceil(MIN_FALSE_ACCEPTS / wanted)):,} impostor pairs, the "
                f"sample has {total:,}; give more faces, or a larger --far"
            )
        share = far
    allowed = int(np.floor(share * total + 1e-9))
    cuts = {name: _cut(pairs.top_impostors, allowed) for name, pairs in found.items()}
    if threshold is not None:
        cuts["old"] = threshold
    if "mixed" in cuts:
        cuts["both"] = max(cuts["new"], cuts["mixed"])
    return cuts


def _cut(top: Scores, allowed: int) -> float:
    """The threshold that ``allowed`` of the scores pass.

    It is in the middle between two scores, so that rounding errors of sums do not decide.
    """
    ranked = np.sort(top)[::-1].astype(np.float64)
    below = ranked[allowed] if allowed < len(ranked) else ranked[-1] - 1e-6
    above = ranked[allowed - 1] if allowed else ranked[0] + 1e-6
    return float((below + above) / 2)


def _blocks(rows: dict[str, Rows], mixable: bool) -> Iterator[Block]:
    """All pairs a < b."""
    count = len(rows["old"])
    sides = [("old", "old", "old"), ("new", "new", "new"), ("mixed", "old", "new")]
    for i in range(0, count, _BLOCK):
        for j in range(i, count, _BLOCK):
            at = (slice(i, i + _BLOCK), slice(j, j + _BLOCK))
            found = {
                name: rows[left][at[0]] @ rows[right][at[1]].T
                for name, left, right in sides[: 3 if mixable else 2]
            }
            shape = found["old"].shape
            keep = np.nonzero(np.triu(np.ones(shape, bool), 1) if i == j else np.ones(shape, bool))
            yield Block({n: s[keep] for n, s in found.items()}, keep[0] + i, keep[1] + j)
