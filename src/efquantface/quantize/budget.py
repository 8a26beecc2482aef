"""A budget as users write it."""

from __future__ import annotations

import re

from efquantface.errors import RecipeError

_UNITS = {"B": 1.0, "KB": 1e3, "MB": 1e6}
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(%|B|KB|MB)", re.IGNORECASE)


def parse_budget(text: str, full: float) -> float:
    """The bytes of a budget: ``600KB``, ``2MB`` or ``60%`` (of ``full``, the 8-bit student's file).

    Raises:
        RecipeError: the text is no size and no share.
    """
    match = _BUDGET.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise RecipeError(f"budget {text!r}: write a size (600KB, 2MB) or a share (60%)")
    value, unit = float(match[1]), match[2].upper()
    return full * value / 100 if unit == "%" else value * _UNITS[unit]
