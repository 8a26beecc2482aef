"""The thresholds that a run measured for its student."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from efquantface.reading import parse_json

_METRIC = "threshold at FAR="
_USUAL = 1e-3  # the FAR that is preferred where several were measured


def decisions(student: Path | None) -> list[dict[str, Any]]:
    """Cosine thresholds of a run's student, one per FAR.

    They are of the protocol with the most impostor pairs. Protocols that add embeddings of mirrored
    crops do not count: their cosines are others.

    Args:
        student: the student's file; a run keeps metrics.json beside it.

    Returns:
        Dictionaries with ``far``, ``threshold``, ``measured`` (on which set) and ``preferred`` (true of
        one of them). Empty where nothing was measured.
    """
    path = None if student is None else student.with_name("metrics.json")
    if student is None or student.name != "student.safetensors" or path is None:
        return []
    try:
        protocols = parse_json(path.read_bytes())["protocols"]
        read = [(protocol, _thresholds(protocol)) for protocol in protocols]
        usable = [(p, found) for p, found in read if found and p["flags"].startswith("flip off")]
        if not usable:
            return []
        protocol, found = max(usable, key=lambda entry: int(entry[0]["counts"]["impostor"]))
        pairs = int(protocol["counts"]["impostor"])
        measured = f"{str(protocol['protocol'])[:80]} ({pairs:,} pairs of different people)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return []  # no results, or not of this program
    preferred = min(found, key=lambda far: abs(math.log(far / _USUAL)))
    return [
        {"far": far, "threshold": found[far], "measured": measured, "preferred": far == preferred}
        for far in sorted(found, reverse=True)
    ]


def _thresholds(protocol: dict[str, Any]) -> dict[float, float]:
    """The student's thresholds of a protocol, by FAR."""
    named = {
        m["name"].removeprefix(_METRIC): m["student"]
        for m in protocol["metrics"]
        if m["name"].startswith(_METRIC) and m["student"] is not None
    }
    found = {float(far): float(threshold) for far, threshold in named.items()}
    return {f: t for f, t in found.items() if 0 < f < 1 and -1 <= t <= 1}
