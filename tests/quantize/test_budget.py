"""File sizes as they are written."""

from __future__ import annotations

import pytest

from efquantface.errors import RecipeError
from efquantface.quantize.budget import parse_budget


@pytest.mark.parametrize(
    ("text", "size"),
    [("600KB", 6e5), ("2MB", 2e6), ("1.5 mb", 1.5e6), ("60%", 60.0), ("900B", 900)],
)
def test_budgets(text: str, size: float) -> None:
    assert parse_budget(text, 100) == pytest.approx(size)


@pytest.mark.parametrize("text", ["", "much", "0%", "-2MB", "3TB"])
def test_bad_budgets(text: str) -> None:
    with pytest.raises(RecipeError, match="budget"):
        parse_budget(text, 100)
