"""The verdict follows its rule, FAR by FAR."""

from __future__ import annotations

import pytest

from efquantface.evaluation.result import Curves, Metric, Mixed, ProtocolResult
from efquantface.report.verdict import judge

Loss = tuple[float, float, float]
FARS = (0.01, 0.001, 0.0001)


def protocol(
    *losses: Loss,
    name: str = "mine all pairs",
    impostor: int = 10_000_000,
    mixed: tuple[Mixed, ...] = (),
) -> ProtocolResult:
    """Losses as (loss, low, high) at FAR 1e-2, 1e-3 and 1e-4."""
    metrics = [
        Metric(f"TAR@FAR={far:g}", 0.9, student=0.9 - loss, loss=loss, loss_interval=(low, high))
        for far, (loss, low, high) in zip(FARS, losses, strict=False)
    ]
    metrics += [
        Metric(f"threshold at FAR={far:g}", 0.3, student=0.31) for far in FARS[: len(losses)]
    ]
    counts = {"genuine": 100, "impostor": impostor, "images": 200}
    return ProtocolResult(name, counts, "flip off", metrics, Curves(), mixed=list(mixed))


FINE, LOST, UNSURE = (0.001, -0.001, 0.003), (0.0098, 0.004, 0.015), (0.004, -0.02, 0.03)


@pytest.mark.parametrize(
    ("losses", "level", "said"),
    [
        ([FINE, FINE], "yes", "may replace the teacher at FAR 0.01 and 0.001."),
        (
            [FINE, FINE, LOST],
            "partly",
            "at FAR 0.01 and 0.001; not at FAR 0.0001, where TAR loses 0.98 points.",
        ),
        ([LOST, LOST], "no", "does not replace the teacher at FAR 0.01 and 0.001, where"),
        ([UNSURE], "unknown", "At FAR 0.01 there are too few pairs to tell."),
        ([FINE, UNSURE], "partly", "at FAR 0.01; at FAR 0.001 there are too few"),
        ([(0.006, -0.001, 0.013)], "unknown", "too few"),  # more, but it may be chance
        ([(0.004, 0.002, 0.0101)], "unknown", "too few"),  # little, but it may be much
    ],
)
def test_rule(losses: list[Loss], level: str, said: str) -> None:
    verdict = judge([protocol(*losses)])
    assert verdict.level == level
    assert said in verdict.headline
    assert verdict.strictest == verdict.rows[-1]


def test_the_protocol_with_most_impostors_is_judged() -> None:
    few = protocol(FINE, name="mine pairs", impostor=3000)
    verdict = judge([few, protocol(LOST)])
    assert verdict.level == "no"
    assert verdict.judged == "mine all pairs, 100 genuine, 10,000,000 impostor pairs"


def test_without_people_nothing_is_judged() -> None:
    alone = protocol()
    verdict = judge([alone])
    assert (verdict.level, verdict.rows, verdict.threshold) == ("unknown", (), "")
    assert "--eval" in verdict.headline


def test_thresholds_and_galleries() -> None:
    stays, weaker = Mixed(0.01, 0.9, 0.896, 0.014), Mixed(0.001, 0.9, 0.894, 0.001)
    looser = Mixed(0.001, 0.9, 0.95, 0.0016)
    assert judge([protocol(FINE, FINE, mixed=(stays,))]).galleries.startswith(
        "Galleries of the teacher may"
    )
    for bad in (weaker, looser):
        assert "again" in judge([protocol(FINE, FINE, mixed=(bad,))]).galleries
        both = judge([protocol(FINE, FINE, mixed=(stays, bad))])
        assert "may stay at FAR 0.01" in both.galleries
        assert "at FAR 0.001 embed them again" in both.galleries
    assert judge([protocol(FINE)]).galleries == ""
    assert "0.310 at FAR 0.01 (teacher 0.300)" in judge([protocol(FINE)]).threshold
    assert judge([protocol(FINE, mixed=(stays,))]).as_dict()["rows"][0]["gallery"] is True
