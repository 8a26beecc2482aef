"""Whether a gallery may be mixed, must be embedded again, or keeps its model: one stated rule."""

from __future__ import annotations

from dataclasses import dataclass, field

from efquantface.evaluation.succession import Succession
from efquantface.evaluation.tally import AGAIN, AS_IS, AS_IS_NEW, MIXED, MIXED_NEW, Case

MARGIN = 0.005  # by which FRR may rise, as a share of genuine pairs
_FAR_RATIO = 1.5  # that FAR may grow by at a threshold that is left as it is
MIX, EMBED, KEEP, OPEN = "may be mixed", "must be embedded again", "keep the old model", "undecided"
_FITS, _FAILS, _UNSURE = "fits", "fails", "unsure"


@dataclass(frozen=True)
class Verdict:
    """What to do with the gallery.

    Attributes:
        verdict: one of ``MIX``, ``EMBED``, ``KEEP`` and ``OPEN``.
        threshold: to be deployed with it; None where nothing is decided.
        reasons: sentences that lead to it.
        rule: the rule, in words.
    """

    verdict: str
    threshold: float | None
    reasons: list[str] = field(default_factory=list)
    rule: str = ""


def rule(margin: float) -> str:
    """The rule in words, for a margin of FRR."""
    return (
        f"A way to go on fits where FRR rises by at most {margin:.2%} of the genuine pairs at the old "
        "FAR, with its whole 95 % interval, people resampled; it fails where the whole interval lies "
        "above. A gallery may be mixed where new probes fit against old and against new enrolments at "
        "one threshold. It must be embedded again where mixing fails and the new model alone fits. "
        "Where the new model alone fails, neither helps. Otherwise more faces have to decide."
    )


def judge(found: Succession, margin: float = MARGIN) -> Verdict:
    """Apply the rule.

    Args:
        margin: by which FRR may rise, a share of genuine pairs.
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
                "old one"
            )
        else:
            reasons.append(
                f"the threshold has to change: at {found.threshold:.4f} FRR does not fit, or FAR is "
                f"more than {_FAR_RATIO:g} times the old one"
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
