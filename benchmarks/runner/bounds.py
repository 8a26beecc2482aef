"""What was asked of the product, what was measured, and whether it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from . import rows
from .groups import FLOAT, MARK, USER, caption, grouped
from .tables import RUNTIMES, block, pruned_groups, speed_of

# bits: largest loss of accuracy, of TAR@1e-3 (pairs), in points
_BITS = {
    "w8a8": (0.10, 0.2),
    "w6a8": (0.10, 0.3),
    "w4a8": (0.15, 0.7),
    "w6a6": (0.15, 0.7),
    "w4a4": (0.60, 3.0),
}
# share pruned: largest loss of accuracy, least times as fast at batch 1
_PRUNED: dict[str, tuple[float, float | None]] = {"25%": (0.30, None), "50%": (1.00, 1.4)}
_DIGITS = {"": 2, "x": 2, "cosine": 4}


@dataclass(frozen=True)
class Bound:
    """One line of the table: values that belong together, each with its limit.

    Attributes:
        unit: empty for points, ``x`` for ratios, ``cosine``.
        least: measured values have to be at least the limits, not at most.
    """

    what: str
    limits: tuple[float, ...]
    measured: tuple[float, ...]
    unit: str = ""
    least: bool = False
    marked: bool = False

    @property
    def kept(self) -> bool:
        """Whether every value keeps its limit, in the digits that are shown."""
        digits = _DIGITS[self.unit]
        pairs = [
            (round(m, digits), limit) for m, limit in zip(self.measured, self.limits, strict=True)
        ]
        return all(m >= limit if self.least else m <= limit for m, limit in pairs)

    def cells(self) -> list[str]:
        """What, asked, measured, kept."""
        name = f"{self.what} {MARK}" if self.marked else self.what
        limits = self.limits[:1] if len(set(self.limits)) == 1 else self.limits
        asked = f"{'at least' if self.least else 'at most'} {self._shown(limits)}"
        return [name, asked, self._shown(self.measured), "yes" if self.kept else "**no**"]

    def _shown(self, values: tuple[float, ...]) -> str:
        sign = "x" if self.unit == "x" else ""
        return ", ".join(f"{value:.{_DIGITS[self.unit]}f}{sign}" for value in values)


def bounds() -> str:
    """The table of all bounds."""
    found = [*_by_bits(), *_pruned(), *_fast(), *_portable(), *_litert()]
    kept = sum(bound.kept for bound in found)
    verdict = f"{kept} of {len(found)} bounds are kept."
    note = (
        "Losses are means over seeds on LFW, in points: accuracy, then TAR@1e-3 of its 6,000 pairs. "
        "Speed with VNNI, one crop, one thread; of pruned networks in ONNX Runtime, then OpenVINO"
    )
    body = [bound.cells() for bound in found]
    return block(verdict, ["", "asked", "measured", "kept"], body, caption([note]))


def _by_bits() -> list[Bound]:
    found = []
    for group in grouped("bits"):
        if group.name not in _BITS or group.network == "mobileface2":
            continue
        losses = [group.mean_loss(metric) for metric in ("accuracy", "1e-3 pairs")]
        there = tuple(loss for loss in losses if loss is not None)
        what = f"{group.title}: accuracy, TAR"
        found.append(Bound(what, _BITS[group.name], there, marked=group.marked))
    return found


def _pruned() -> list[Bound]:
    groups = grouped("pruning")
    found = []
    for network in ("y1", "mobileface2", "dlib"):
        for share, (loss, speed) in _PRUNED.items():
            for group in pruned_groups(groups, network, share):
                what = group.title.replace(group.name, f"{share} pruned, w8a8")
                marked, measured = group.marked, group.mean_loss("accuracy")
                if measured is not None:
                    found.append(Bound(f"{what}: accuracy", (loss,), (measured,), marked=marked))
                times = [t for r in RUNTIMES if (t := group.times(r, 1))]
                if speed and times:
                    limits = (speed,) * len(times)
                    found.append(Bound(f"{what}: speed", limits, tuple(times), "x", True, marked))
    return found


def _fast() -> list[Bound]:
    pool = grouped("bits")
    group = next(g for g in pool if (g.network, g.name) == ("y1", "w8a8"))
    found = [
        Bound(f"y1, w8a8: speed against {words}", (limit,), (times,), "x", True, group.marked)
        for limit, words, against in (
            (2.5, "the user's file", USER),
            (5.0, "the user's file, second goal", USER),
            (1.6, "the best float form", FLOAT),
        )
        if (times := speed_of(group, pool, "onnxruntime", 1, against))
    ]
    random = [g for g in grouped("networks") if g.name == "w8a8 random weights"]
    big = {g.network: t for g in random if (t := g.times("onnxruntime", 1))}
    return [*found, *_together("speed against float, random weights", 3.0, big, "x", True)]


def _portable() -> list[Bound]:
    """Held-out loss of the portable form against full range, after training."""
    found = grouped("bits") + grouped("networks")
    full = {(g.network, g.faces): g for g in found if g.name == "w8a8 full range"}
    ratios, marked = {}, False
    for ours in (g for g in found if g.name == "w8a8"):
        # another training set has other people held out
        theirs = full.get((ours.network, ours.faces))
        losses = [g.value("held_out", 1) for g in (ours, theirs) if g]
        if len(losses) == 2 and losses[0] and losses[1]:
            ratios[ours.network] = losses[0] / losses[1]
            marked = marked or ours.marked
    return _together("held-out loss, w8a8 against full range", 1.1, ratios, "x", marked=marked)


def _litert() -> list[Bound]:
    found = {row["name"]: row["cosine_to_integers"]["xnnpack"][0] for row in rows.read("litert")}
    return _together("cosine to the integers in LiteRT", 0.9995, found, "cosine", True)


def _together(
    what: str,
    limit: float,
    found: Mapping[str, float],
    unit: str,
    least: bool = False,
    marked: bool = False,
) -> list[Bound]:
    """One bound of several networks as a line; none where nothing is measured."""
    if not found:
        return []
    limits = (limit,) * len(found)
    name = f"{', '.join(found)}: {what}"
    return [Bound(name, limits, tuple(found.values()), unit, least, marked)]
