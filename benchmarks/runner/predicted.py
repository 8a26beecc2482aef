"""What training left of the distance to the teacher: the shares that a target is predicted with."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from efquantface.errors import RecipeError
from efquantface.quantize.scheme import Bits
from efquantface.target.predict import Cause, cause

from .rows import Row, read
from .suites import cells

SUITES = ("bits", "pruning", "networks", "synthetic")


@dataclass(frozen=True)
class Share:
    """Of the held-out ``1 - cosine`` before training, what is left after it.

    Attributes:
        cause: of the distance; activations have 8 bits.
        mean: geometric, over rows.
        spread: factor of one standard deviation.
    """

    cause: Cause
    epochs: int
    rows: int
    mean: float
    spread: float


def shares(rows: Iterable[Row] | None = None) -> list[Share]:
    """By kind and epochs, most rows first; where there are rows of today's recipes only these count."""
    found = [row for suite in SUITES for row in read(suite)] if rows is None else rows
    todays = {cell.digest for suite in SUITES for cell in cells(suite)}
    kinds: dict[tuple[Cause, int], list[tuple[bool, float]]] = defaultdict(list)
    for row in found:
        share = _share(row)
        if share is not None:
            fresh = row.get("recipe") in todays
            kinds[_cause(row), row["epochs"]].append((fresh, math.log(share)))
    made = []
    for (why, epochs), measured in kinds.items():
        logs = [log for fresh, log in measured if fresh] or [log for _, log in measured]
        mean = sum(logs) / len(logs)
        deviation = math.sqrt(sum((log - mean) ** 2 for log in logs) / len(logs))
        made.append(Share(why, epochs, len(logs), math.exp(mean), math.exp(deviation)))
    return sorted(made, key=lambda share: -share.rows)


def as_text(found: Iterable[Share]) -> str:
    """A table."""
    lines = ["| | epochs | rows | share left | one deviation |", "|---|---|---|---|---|"]
    for one in found:
        kind = one.cause.value
        lines.append(
            f"| {kind} | {one.epochs} | {one.rows} | {one.mean:.2f} | times {one.spread:.2f} |"
        )
    return "\n".join(lines)


def _cause(row: Row) -> Cause:
    bits = _bits(row["name"])
    return cause(8 if bits is None else bits.weight, _pruned(row))


def _pruned(row: Row) -> bool:
    before, after = row.get("macs") or (1, 1)
    return bool(after < 0.999 * before)


def _share(row: Row) -> float | None:
    """None where nothing was trained, or something else was done than ``--target`` tries."""
    before, after = row.get("held_out") or (None, None)
    if not before or not after or not row.get("epochs") or "magnitude" in row["name"]:
        return None
    bits = _bits(row["name"])
    if not _pruned(row) and (bits is None or bits.activation != 8):
        return None
    return float(after / before)


def _bits(name: str) -> Bits | None:
    """The bits that a row's name begins with."""
    try:
        return Bits.parse(name.split()[0].rstrip(","))
    except RecipeError:
        return None
