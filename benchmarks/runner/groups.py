"""Rows of one cell together: which count, which are marked, their means and speeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from efquantface.runtime.processor import ARM, WITH_VNNI, WITHOUT_VNNI

from . import rows
from .suites import SUITES, USUAL, Cell, cells

MARK = "†"
NOT_RECORDED = "not recorded"
FLOAT, USER, STUDENT = "float", "user", "student"
MASKED = "masked"  # a processor that hides its VNNI (without_vnni.py)


@dataclass(frozen=True)
class Group:
    """Rows that differ in their seed only.

    Attributes:
        marked: another recipe than today's for the cell made them, or one that was not recorded.
    """

    network: str
    name: str
    faces: str | None
    kind: str | None
    rows: tuple[rows.Row, ...]
    marked: bool

    @property
    def title(self) -> str:
        """Network, name, and the training set where it is not that of most rows."""
        if self.faces in (USUAL, None):
            return f"{self.network}, {self.name}"
        images = self.value("images")
        count = f"{images:,.0f} images of " if images else ""
        return f"{self.network}, {self.name}, on {count}{self.faces}"

    @property
    def label(self) -> str:
        """The title as a table's first column has it: with its mark."""
        return f"{self.title} {MARK}" if self.marked else self.title

    @property
    def rank(self) -> tuple[bool, str]:
        """Which of a cell's groups counts: today's recipe first, then the newest."""
        return not self.marked, max(str(row.get("date") or row.get("added")) for row in self.rows)

    def losses(self, metric: str, of: str = "lfw") -> list[float]:
        """The losses of a metric, in points."""
        found = [(row.get(of) or {}).get(metric) for row in self.rows]
        return [100 * values[2] for values in found if values and values[2] is not None]

    def mean_loss(self, metric: str, of: str = "lfw") -> float | None:
        """Their mean."""
        found = self.losses(metric, of)
        return fmean(found) if found else None

    def loss(self, metric: str, of: str = "lfw") -> str:
        """Mean over seeds and [least, largest]; of one seed the loss and its interval."""
        found = self.losses(metric, of)
        if not found:
            return NOT_RECORDED
        if len(found) > 1:
            return f"{fmean(found):+.2f} [{min(found):+.2f}, {max(found):+.2f}]"
        (values,) = [row[of][metric] for row in self.rows if (row.get(of) or {}).get(metric)]
        low, high = values[3:]
        if low is None:
            return f"{found[0]:+.2f}"
        return f"{found[0]:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"

    def value(self, *path: str | int) -> float | None:
        """The mean of a field, ``("held_out", 1)`` or ``("lfw", "cosine")``."""
        found = [_at(row, path) for row in self.rows]
        numbers = [value for value in found if value is not None]
        return fmean(numbers) if numbers else None

    def times(self, runtime: str, batch: int, against: str = FLOAT) -> float | None:
        """How many times as fast as another file in the same runtime; None where not measured."""
        return _first(_times(row, runtime, batch, against) for row in self.rows)


def _at(row: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        if row is None or (isinstance(row, dict) and part not in row):
            return None
        row = row[part]
    return row


def _times(row: rows.Row, runtime: str, batch: int, against: str) -> float | None:
    ms = _at(row, ("speed", runtime, str(batch))) or {}
    if STUDENT in ms and against in ms:
        return float(ms[against] / ms[STUDENT])
    return None


def _first(found: Iterable[float | None]) -> float | None:
    return next((value for value in found if value is not None), None)


def number(value: float | None, form: str = ".2f", ending: str = "") -> str:
    """A number as tables show it, or that it was not recorded."""
    return NOT_RECORDED if value is None else f"{value:{form}}{ending}"


def grouped(suite: str, found: list[rows.Row] | None = None) -> list[Group]:
    """The groups of a suite, in the order of its cells, then those that have no cell any more.

    Where a cell has rows of today's recipe, only these count: all of its training sets, that which was
    measured last first. Of older rows only those count that were measured last.
    """
    found = rows.read(suite) if found is None else found
    today = {(c.network, c.name): c for c in cells(suite)} if suite in SUITES else {}
    same: dict[tuple[Any, ...], list[rows.Row]] = defaultdict(list)
    for row in found:
        same[row["network"], row["name"], row.get("faces"), row.get("kind")].append(row)
    order = {key: at for at, key in enumerate(today)}
    groups = []
    for key in sorted(same, key=lambda k: (order.get(k[:2], len(order)), str(k))):
        cell = today.get(key[:2])
        fresh = [row for row in same[key] if _is_todays(row, cell)]
        network, name, faces, kind = key
        counted = tuple(fresh or same[key])
        groups.append(Group(network, name, faces, kind, counted, not fresh))
    by_cell: dict[tuple[Any, ...], list[Group]] = defaultdict(list)
    for group in groups:
        by_cell[group.network, group.name, group.kind].append(group)
    counted_groups: list[Group] = []
    for same_cell in by_cell.values():
        newest = sorted(same_cell, key=lambda g: g.rank, reverse=True)
        counted_groups += [g for g in newest if not g.marked] or newest[:1]
    return counted_groups


def _is_todays(row: rows.Row, cell: Cell | None) -> bool:
    """Of today's recipe; of a peer, which has none, every row is."""
    return cell is not None and row.get("recipe") == cell.digest


def conditions(groups: Iterable[Group], note: str = "") -> str:
    """The caption of a table: dates, processors, versions, flags, commits."""
    all_rows = [row for group in groups for row in group.rows]
    dates = sorted(filter(None, (row.get("date") or row.get("added") for row in all_rows)))
    undated = sum(not row.get("date") for row in all_rows)
    where = _listed(short(row.get("processor")) for row in all_rows)
    timed = _listed(short(row["speed_on"]) for row in all_rows if "speed_on" in row)
    packages = [row.get("packages") or {} for row in all_rows]
    versions = "; ".join(
        f"{name} {_listed(found)}"
        for name in ("onnxruntime", "openvino", "torch")
        if any(found := [p.get(name) for p in packages])
    )
    flags = _listed(part["flags"] for row in all_rows if (part := row.get("lfw")))
    parts = [
        " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else NOT_RECORDED,
        f"{undated} of {len(all_rows)} rows by the date of their commit" if undated else "",
        f"on {where}",
        f"speed on {timed}" if timed and timed != where else "",
        versions,
        flags,
        commits(all_rows),
        note,
    ]
    return caption(parts)


def caption(parts: Iterable[str]) -> str:
    """Conditions in small print."""
    return f"<sub>{'. '.join(part.rstrip('.') for part in parts if part)}.</sub>"


def commits(found: Iterable[rows.Row]) -> str:
    """Which commits made the rows, or only added them."""
    by: dict[str, set[str]] = defaultdict(set)
    for row in found:
        by[row.get("commit_is") or rows.ADDED].add(str(row.get("commit") or NOT_RECORDED))
    ways = {rows.MADE: "made by", rows.ADDED: "added by", rows.IN_DOCS: "added to docs by"}
    return "; ".join(f"{ways.get(way, way)} {', '.join(sorted(by[way]))}" for way in sorted(by))


def short(processor: str | None) -> str | None:
    """A processor's name and whether it has VNNI, of its name and instruction sets."""
    if processor is None:
        return None
    name = processor.partition(" (")[0].partition(",")[0]
    return f"{name} {(kind_of(processor) or '').removeprefix('x86 ')}"


def kind_of(processor: str | None) -> str | None:
    """The kind of a processor (``efquantface.runtime.processor``), by its instruction sets."""
    if processor is None:
        return None
    sets = processor.partition(" (")[2]
    if "asimd" in sets:
        return ARM
    return WITH_VNNI if "vnni" in sets or "amx" in sets else WITHOUT_VNNI


def _listed(values: Iterable[str | None]) -> str:
    found = list(dict.fromkeys(value or NOT_RECORDED for value in values))
    return ", ".join(sorted(found))
