"""The rule about a gallery, case by case."""

from __future__ import annotations

import pytest

from efquantface.evaluation.advice import EMBED, KEEP, MIX, OPEN, judge
from efquantface.evaluation.succession import Succession
from efquantface.evaluation.tally import AGAIN, AS_IS, AS_IS_NEW, MIXED, MIXED_NEW, Case, Share

FITS, FAILS, UNSURE = (-0.001, 0.004), (0.006, 0.01), (0.001, 0.009)
NONE = Share(0, 0.0, (0.0, 0.0))


def case(name: str, interval: tuple[float, float], far: float = 1e-4) -> Case:
    rise = Share(0, sum(interval) / 2, interval)
    return Case(name, "new", 0.3, NONE, NONE, rise, 0, far, NONE, NONE)


def found(
    again: tuple[float, float],
    *mixed: tuple[float, float],
    as_is: tuple[float, float] = FAILS,
    far: float = 1e-4,
) -> Succession:
    cases = [case(AGAIN, again)]
    if mixed:
        cases += [case(MIXED, mixed[0]), case(MIXED_NEW, mixed[1])]
        cases += [case(AS_IS, as_is, far), case(AS_IS_NEW, as_is)]
    cuts = {"new": 0.31, "mixed": 0.32, "both": 0.32}
    return Succession(100, 50, True, 50, 4900, 0.4, 1e-4, 0.01, cuts, [], cases)


@pytest.mark.parametrize(
    ("sample", "verdict", "threshold"),
    [
        (found(FITS, FITS, FITS), MIX, 0.32),
        (found(FITS, FITS, FITS, as_is=FITS), MIX, 0.4),
        (found(FITS, FITS, FITS, as_is=FITS, far=2e-4), MIX, 0.32),
        (found(FITS, FAILS, FITS), EMBED, 0.31),
        (found(FITS, FITS, FAILS), EMBED, 0.31),
        (found(FITS), EMBED, 0.31),  # of another length
        (found(FAILS, FAILS, FAILS), KEEP, 0.4),
        (found(FAILS, UNSURE, FITS), KEEP, 0.4),
        (found(FAILS), KEEP, 0.4),
        (found(FITS, UNSURE, FITS), OPEN, None),
        (found(UNSURE, FAILS, FITS), OPEN, None),
        (found(UNSURE), OPEN, None),
    ],
)
def test_the_rule(sample: Succession, verdict: str, threshold: float | None) -> None:
    given = judge(sample)
    assert (given.verdict, given.threshold) == (verdict, threshold)
    assert "0.50%" in given.rule
    assert given.reasons


def test_the_margin_is_the_users() -> None:
    assert judge(found(FAILS, FAILS, FAILS), 0.02).verdict == MIX
    assert "2.00%" in judge(found(FAILS), 0.02).rule
    assert judge(found(FITS, FITS, FITS), 0.001).verdict == OPEN
    assert any("mixing fails" in r for r in judge(found(UNSURE)).reasons)
