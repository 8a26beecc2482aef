"""What other processes took of the cores while something was measured."""

from __future__ import annotations

import psutil
import pytest

from efquantface.runtime.busy import Load, Watch


def watched(monkeypatch: pytest.MonkeyPatch, every: float, own: float) -> Load:
    """As if psutil counted so much, in percent of all cores and of one core, on 4 cores."""
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    monkeypatch.setattr(psutil, "getloadavg", lambda: (2.5, 9.0, 9.0))
    monkeypatch.setattr(psutil, "cpu_percent", lambda: every)
    monkeypatch.setattr(psutil.Process, "cpu_percent", lambda _: own)
    with Watch() as watch:
        pass
    return watch.load


@pytest.mark.parametrize(
    ("every", "own", "others", "busy"),
    [
        (75.0, 100.0, 0.5, True),
        (27.0, 100.0, 0.02, False),
        (25.0, 110.0, 0.0, False),  # counted at two moments: never less than nothing
    ],
)
def test_the_share_of_others(
    every: float, own: float, others: float, busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = watched(monkeypatch, every, own)
    assert load.others == pytest.approx(others)
    assert load.own == pytest.approx(own / 400)
    assert load.busy is busy
    said = load.describe()
    assert f"other processes took {round(100 * others)} % of the 4 cores" in said
    assert "load average 2.5" in said
    assert ("read ratios, not milliseconds" in said) is busy


def test_real_counters_are_shares() -> None:
    with Watch() as watch:
        sum(range(200_000))
    assert watch.load.cores >= 1
    assert 0 <= watch.load.others <= 1
    assert 0 <= watch.load.own <= 1
