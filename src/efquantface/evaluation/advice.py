"""The rule that says whether a gallery may be mixed, must be embedded again, or keeps its model."""

from __future__ import annotations

from dataclasses import dataclass, field

from efquantface.evaluation.succession import Succession
from efquantface.evaluation.tally import AGAIN, AS_IS, AS_IS_NEW, MIXED, MIXED_NEW, Case

MARGIN = 0.005  # how much FRR may rise, as a share of genuine pairs
_FAR_RATIO = 1.5  # how many times the old FAR is accepted at an unchanged threshold
MIX, EMBED, KEEP, OPEN = "may be mixed", "must be embedded again", "keep the old model", "undecided"
_FITS, _FAILS, _UNSURE = "fits", "fails", "unsure"


@dataclass(frozen=True)
class Verdict:
    """What to do with the gallery.

    Attributes:
        verdict: one of ``MIX``, ``EMBED``, ``KEEP`` and ``OPEN``.
        threshold: the cosine to deploy; None where the verdict is ``OPEN``.
        reasons: sentences that give the grounds.
        rule: the rule, in words.
    """

    verdict: str
    threshold: float | None
    reasons: list[str] = field(default_factory=list)
    rule: str = ""


def rule(margin: float) -> str:
    """The rule in words, for a margin of FRR (a share of genuine pairs)."""
    return (
        f"A way to go on fits where the rise of FRR at the old FAR is at most {margin:.2%} of the "
        "genuine pairs over its whole 95 % interval (people resampled). It fails where the whole "
        "interval is above that. A gallery may be mixed where new probes fit against old and against "
        "new enrolments at one threshold. It must be embedded again where mixing fails and the new "
        "model alone fits. Where the new model alone fails, keep the old one. Otherwise give more faces."
    )


def judge(found: Succession, margin: float = MARGIN) -> Verdict:
    """Apply the rule.

    Args:
        found: the comparison of the two models.
        margin: how much FRR may rise, as a share of genuine pairs.
    """
    again = found.case(AGAIN)
    mixed = [c for c in (found.case(MIXED), found.case(MIXED_NEW)) if c is not None]
    assert again is not None  # every comparison has it
    alone, reasons = _judged(again, margin), [_sentence(again, margin)]
    if mixed:
        together = _worst([_judged(c, margin) for c in mixed])
        reasons += [_sentence(c, margin) for c in mixed]
    else:
        together = _FAILS
        reasons.append("embeddings of the two models differ in length and cannot be mixed")
    verdict, threshold = OPEN, None
    if together == _FITS:
        verdict, threshold = MIX, found.thresholds["both"]
        as_is = [c for c in (found.case(AS_IS), found.case(AS_IS_NEW)) if c is not None]
        if all(_judged(c, margin) == _FITS and c.far <= _FAR_RATIO * found.far for c in as_is):
            threshold = found.threshold
            reasons.append(
                f"the threshold may stay: FRR fits there, and FAR is at most {_FAR_RATIO:g} times the "
                "old FAR"
            )
        else:
            reasons.append(
                f"the threshold has to change: at {found.threshold:.4f} FRR does not fit, or FAR is "
                f"more than {_FAR_RATIO:g} times the old FAR"
            )
    elif alone == _FAILS:
        verdict, threshold = KEEP, found.threshold
    elif alone == _FITS and together == _FAILS:
        verdict, threshold = EMBED, found.thresholds["new"]
    else:
        no = "; mixing fails in any case" if together == _FAILS else ""
        reasons.append(f"intervals are too wide: give faces of more people{no}")
    return Verdict(verdict, threshold, reasons, rule(margin))


def _judged(case: Case, margin: float) -> str:
    low, high = case.rise.interval
    return _FITS if high <= margin else _FAILS if low > margin else _UNSURE


def _worst(found: list[str]) -> str:
    return next(word for word in (_FAILS, _UNSURE, _FITS) if word in found)


def _sentence(case: Case, margin: float) -> str:
    low, high = case.rise.interval
    return (
        f"{case.name}, threshold {case.threshold:.4f}: FRR rises by {case.rise.share:.2%} "
        f"({low:.2%} to {high:.2%}): {_judged(case, margin)}"
    )
