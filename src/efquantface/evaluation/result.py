"""The result of a protocol: metrics with intervals, curves, and the pairs decided differently."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from efquantface.errors import RuntimeMissingError
from efquantface.evaluation.bootstrap import Interval


@dataclass
class Metric:
    """One number of the teacher (or of the only model), and the student's beside it.

    Attributes:
        name: for tables; shares are from 0 to 1.
        teacher, student: the numbers. The teacher has none where only a student can have one (its cosine
            to the teacher); the student has none where one model is evaluated.
        loss: teacher minus student.
        teacher_interval, student_interval, loss_interval: 95 %; that of the loss is paired.
        note: shown beside the numbers.
    """

    name: str
    teacher: float | None
    teacher_interval: Interval | None = None
    student: float | None = None
    student_interval: Interval | None = None
    loss: float | None = None
    loss_interval: Interval | None = None
    note: str = ""


@dataclass
class Curves:
    """The data of figures, by model name.

    Attributes:
        roc: (FAR, TAR).
        genuine, impostor: histograms of cosines over [-1, 1].
    """

    roc: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    genuine: dict[str, list[int]] = field(default_factory=dict)
    impostor: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Mixed:
    """The student's probes in the teacher's gallery, at the teacher's threshold.

    Attributes:
        asked: the FAR of the threshold for the teacher.
        teacher: the teacher's own TAR there.
        tar, far: of the mixed pairs there.
    """

    asked: float
    teacher: float
    tar: float
    far: float


@dataclass(repr=False)
class ProtocolResult:
    """All metrics of one protocol on one evaluation set.

    Attributes:
        protocol: for example ``lfw pairs`` or ``lfw all pairs``.
        counts: genuine pairs, impostor pairs, images.
        flags: how embeddings were made (flip, normalization).
        metrics: all numbers.
        curves: data of the figures.
        changed: (a, b, same, teacher's score, student's score) of pairs decided differently; a and b are
            indices of images.
        left_out: sentences on pairs and metrics that were left out.
        mixed: the teacher's gallery with the student's probes, one entry per FAR.
    """

    protocol: str
    counts: dict[str, int]
    flags: str
    metrics: list[Metric]
    curves: Curves
    changed: list[tuple[int, int, bool, float, float]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    mixed: list[Mixed] = field(default_factory=list)

    def __repr__(self) -> str:
        """One line: what was compared, and the first metric."""
        first = self.metrics[0] if self.metrics else None
        text = f"ProtocolResult({self.protocol}: {self.counted}"
        return f"{text}, {_short(first)})" if first else f"{text})"

    @property
    def counted(self) -> str:
        """The numbers of pairs or searches, in words."""
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

    def values(self) -> dict[str, float]:
        """All numbers by ``METRIC/teacher``, ``METRIC/student`` and ``METRIC/loss``."""
        named = {
            f"{m.name}/{who}": getattr(m, who)
            for m in self.metrics
            for who in ("teacher", "student", "loss")
        }
        return {name: value for name, value in named.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """Plain data for metrics.json, without curves."""
        return {
            "protocol": self.protocol,
            "counts": self.counts,
            "flags": self.flags,
            "metrics": [vars(m) for m in self.metrics],
            "left_out": self.left_out,
            "mixed": [vars(m) for m in self.mixed],
        }


class Evaluation(list[ProtocolResult]):
    """Results of one or more protocols: a list that also gives tables.

    Example:
        >>> result = ProtocolResult(
        ...     "lfw pairs", {"genuine": 300, "impostor": 300}, "flip off",
        ...     [Metric("accuracy", 0.9955, student=0.9945, loss=0.001)], Curves(),
        ... )
        >>> evaluation = Evaluation([result])
        >>> evaluation
        Evaluation(lfw pairs: accuracy teacher 0.9955, student 0.9945)
        >>> evaluation.records()[0]["student"]
        0.9945
        >>> evaluation[0].metric("accuracy").loss
        0.001
    """

    def __init__(self, results: Iterable[ProtocolResult] = ()) -> None:
        super().__init__(results)

    def __repr__(self) -> str:
        """One line: each protocol's first metric."""
        parts = [f"{r.protocol}: {_short(r.metrics[0])}" if r.metrics else r.protocol for r in self]
        return f"Evaluation({'; '.join(parts)})"

    def records(self) -> list[dict[str, Any]]:
        """One flat dictionary per metric.

        Returns:
            Dictionaries with the keys ``protocol``, ``metric``, ``teacher``, ``student``, ``loss``,
            ``note``, ``genuine`` and ``impostor``. The three numbers also have ``_low`` and ``_high``
            (95 % interval). The last two count pairs, or searches of a 1:N protocol. Missing values are
            None.
        """
        return [
            {
                "protocol": result.protocol,
                "metric": metric.name,
                **_bounded("teacher", metric.teacher, metric.teacher_interval),
                **_bounded("student", metric.student, metric.student_interval),
                **_bounded("loss", metric.loss, metric.loss_interval),
                "note": metric.note,
                "genuine": result.counts["genuine"],
                "impostor": result.counts["impostor"],
            }
            for result in self
            for metric in result.metrics
        ]

    def to_frame(self) -> Any:
        """:meth:`records` as a ``pandas.DataFrame``.

        Raises:
            RuntimeMissingError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ImportError:
            raise RuntimeMissingError(
                "to_frame() needs pandas: pip install pandas, or take records()"
            ) from None
        return pandas.DataFrame(self.records())


def _bounded(name: str, value: float | None, interval: Interval | None) -> dict[str, float | None]:
    low, high = interval if interval is not None else (None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _short(metric: Metric) -> str:
    if metric.student is None:
        return f"{metric.name} {metric.teacher:.4f}"
    first = "" if metric.teacher is None else f"teacher {metric.teacher:.4f}, "
    return f"{metric.name} {first}student {metric.student:.4f}"
