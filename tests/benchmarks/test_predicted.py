"""What predictions are made of, against rows made here and the rows that were measured."""

from __future__ import annotations

import pytest

from benchmarks.runner.predicted import as_text, shares
from benchmarks.runner.suites import cells
from efquantface.target.predict import LEFT, Cause


def _row(name: str, before: float, after: float, epochs: int = 2, left: float = 1.0) -> dict:
    return {"name": name, "held_out": [before, after], "epochs": epochs, "macs": [1.0, left]}


def test_shares_are_geometric_means_by_kind() -> None:
    rows = [
        _row("w6a8", 0.4, 0.1),
        _row("w4a8", 0.4, 0.1, 4),
        _row("w8a8 full range", 0.01, 0.01),
        _row("w6a6", 0.4, 0.1),  # activations: another kind, which no target tries
        _row("25% w8a8", 0.2, 0.1, 12, 0.75),
        _row("25% w8a8 magnitude", 0.2, 0.2, 12, 0.75),
        _row("w8a8 untrained", 0.2, 0.2, 0),
    ]
    rounded, few, pruned = shares(rows)
    assert (rounded.cause, rounded.rows, rounded.mean) == (Cause.ROUNDED, 2, pytest.approx(0.5))
    assert (few.cause, few.epochs, few.mean) == (Cause.FEW_BITS, 4, pytest.approx(0.25))
    assert rounded.spread == pytest.approx(2)
    assert (pruned.cause, pruned.epochs, pruned.mean) == (Cause.PRUNED, 12, pytest.approx(0.5))
    assert "| channels removed | 12 | 1 | 0.50 | times 1.00 |" in as_text([pruned])


def test_where_there_are_rows_of_todays_recipes_only_they_count() -> None:
    (today,) = {cell.digest for cell in cells("bits") if cell.full == "y1/w4a8 seed 0"}
    rows = [_row("w4a8", 0.4, 0.3), {**_row("w4a8", 0.4, 0.1), "recipe": today}]
    (found,) = shares(rows)
    assert (found.rows, found.mean) == (1, pytest.approx(0.25))


def test_the_product_predicts_with_what_was_measured() -> None:
    found = {(share.cause, share.epochs): share.mean for share in shares()}
    for why, (share, epochs) in LEFT.items():
        assert found[why, epochs] == pytest.approx(share, rel=0.05)
