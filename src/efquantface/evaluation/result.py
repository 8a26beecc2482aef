"""What a protocol gives: metrics with intervals, curves, and the pairs that were decided differently."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from efquantface.evaluation.bootstrap import Interval


@dataclass
class Metric:
    """One number of the teacher (or only model), with interval, and the student's beside it.

    Attributes:
        loss: teacher minus student; its paired interval says whether it is more than chance.
    """

    name: str
    teacher: float
    teacher_interval: Interval | None = None
    student: float | None = None
    student_interval: Interval | None = None
    loss: float | None = None
    loss_interval: Interval | None = None
    note: str = ""


@dataclass
class Curves:
    """What figures are drawn from, by model name."""

    roc: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    genuine: dict[str, list[int]] = field(default_factory=dict)  # histogram over [-1, 1]
    impostor: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class ProtocolResult:
    """All metrics of one protocol on one evaluation set.

    Attributes:
        protocol: for example ``lfw pairs`` or ``lfw all pairs``.
        counts: genuine pairs, impostor pairs, images.
        flags: how embeddings were made (flip, normalization).
        changed: indices (a, b, same, teacher score, student score) of pairs decided differently.
    """

    protocol: str
    counts: dict[str, int]
    flags: str
    metrics: list[Metric]
    curves: Curves
    changed: list[tuple[int, int, bool, float, float]] = field(default_factory=list)

    @property
    def counted(self) -> str:
        """What was compared, in words."""
        first, second = f"{self.counts['genuine']:,}", f"{self.counts['impostor']:,}"
        if self.protocol.endswith("1:N"):
            return f"{first} mated, {second} non-mated searches"
        return f"{first} genuine, {second} impostor pairs"

    def metric(self, name: str) -> Metric:
        """The metric of that name.

        Raises:
            KeyError: there is none.
        """
        found = next((m for m in self.metrics if m.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain data for metrics.json, without curves."""
        return {
            "protocol": self.protocol,
            "counts": self.counts,
            "flags": self.flags,
            "metrics": [vars(m) for m in self.metrics],
        }
