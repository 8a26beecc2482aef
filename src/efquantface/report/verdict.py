"""The verdict: may the student replace the teacher, at which FARs and with which thresholds.

It follows from the protocol with the most impostor pairs, FAR by FAR, by one rule (:data:`RULE`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from efquantface.evaluation.result import Metric, Mixed, ProtocolResult

Level = Literal["yes", "partly", "no", "unknown"]
Answer = Literal["yes", "no", "open"]

MARGIN = 0.005  # loss of TAR that is accepted
_WIDE = 2 * MARGIN  # the loss's interval has to end below it
_MORE = 1.5  # how many times the asked FAR mixed pairs may have
_TAR, _THRESHOLD = "TAR@FAR=", "threshold at FAR="

RULE = (
    f"At a FAR the student replaces the teacher where TAR loses at most {100 * MARGIN:g} points and the "
    f"95 % interval of the loss ends below {100 * _WIDE:g}. It does not where more is lost and the "
    "interval lies above 0. Otherwise there are too few pairs to tell."
)
GALLERY_RULE = (
    "A gallery of the teacher may stay where the student's probes reach the teacher's TAR within "
    f"{100 * MARGIN:g} points at the teacher's threshold, with at most {_MORE:g} times its FAR."
)


@dataclass(frozen=True)
class AtFar:
    """The verdict at one FAR.

    Attributes:
        far: a share of impostor pairs.
        loss, interval: of TAR; without an interval, both ends are the loss.
        replaces: by :data:`RULE`.
        teacher, student: thresholds.
        gallery: whether the teacher's gallery may stay, by :data:`GALLERY_RULE`; None where mixed
            galleries were not scored.
    """

    far: float
    loss: float
    interval: tuple[float, float]
    replaces: Answer
    teacher: float | None
    student: float | None
    gallery: bool | None


@dataclass(frozen=True)
class Verdict:
    """Whether the student may replace the teacher.

    Attributes:
        level: ``yes`` at every FAR, ``partly`` at some, ``no`` at none, ``unknown`` where it cannot be
            told.
        headline: the verdict, in a sentence.
        judged: the protocol, and its numbers of pairs.
        rows: one entry per FAR, the largest first.
    """

    level: Level
    headline: str
    judged: str
    rows: tuple[AtFar, ...]

    @property
    def strictest(self) -> AtFar | None:
        """The smallest FAR that the set supports."""
        return self.rows[-1] if self.rows else None

    @property
    def threshold(self) -> str:
        """The thresholds to deploy, in a sentence; empty where there are none."""
        shown = [
            f"{row.student:.3f} at FAR {row.far:g} (teacher {row.teacher:.3f})"
            for row in self.rows
            if row.student is not None and row.teacher is not None
        ]
        return f"Set the student's own threshold: {', '.join(shown)}." if shown else ""

    @property
    def galleries(self) -> str:
        """Whether galleries must be embedded again, in a sentence; empty where not measured."""
        known = [row for row in self.rows if row.gallery is not None]
        if not known:
            return ""
        keep = [row for row in known if row.gallery]
        if len(keep) == len(known):
            return "Galleries of the teacher may stay, with its thresholds, at every FAR measured."
        if not keep:
            return "Galleries must be embedded again with the student."
        return (
            f"Galleries of the teacher may stay at {_fars(keep)}, with the teacher's threshold; at "
            f"{_fars([row for row in known if not row.gallery])} embed them again with the student."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data for metrics.json."""
        return {**asdict(self), "threshold": self.threshold, "galleries": self.galleries}


def judge(protocols: Sequence[ProtocolResult]) -> Verdict:
    """The verdict on a run's protocols, by :data:`RULE` and :data:`GALLERY_RULE`.

    Args:
        protocols: results of teacher and student.
    """
    judged = max(
        (p for p in protocols if _at_fars(p)), key=lambda p: p.counts["impostor"], default=None
    )
    if judged is None:
        said = "Not judged: no pairs of people were compared. Add --eval with labelled faces."
        return Verdict("unknown", said, "", ())
    rows = tuple(_row(metric, judged) for metric in _at_fars(judged))
    return Verdict(*_summed(rows), f"{judged.protocol}, {judged.counted}", rows)


def _at_fars(protocol: ProtocolResult) -> list[Metric]:
    found = [m for m in protocol.metrics if m.name.startswith(_TAR) and m.loss is not None]
    return sorted(found, key=lambda m: -_far(m))


def _far(metric: Metric) -> float:
    return float(metric.name.removeprefix(_TAR))


def _row(metric: Metric, protocol: ProtocolResult) -> AtFar:
    far, loss = _far(metric), metric.loss or 0.0
    interval = metric.loss_interval or (loss, loss)
    thresholds = next((m for m in protocol.metrics if m.name == f"{_THRESHOLD}{far:g}"), None)
    searched = next((m for m in protocol.mixed if m.asked == far), None)
    return AtFar(
        far,
        loss,
        interval,
        _replaces(loss, interval),
        None if thresholds is None else thresholds.teacher,
        None if thresholds is None else thresholds.student,
        None if searched is None else _stays(searched),
    )


def _replaces(loss: float, interval: tuple[float, float]) -> Answer:
    if loss <= MARGIN and interval[1] < _WIDE:
        return "yes"
    return "no" if loss > MARGIN and interval[0] > 0 else "open"


def _stays(searched: Mixed) -> bool:
    return searched.tar >= searched.teacher - MARGIN and searched.far <= _MORE * searched.asked


def _summed(rows: tuple[AtFar, ...]) -> tuple[Level, str]:
    """Level and headline."""
    by = {
        answer: [row for row in rows if row.replaces == answer] for answer in ("yes", "no", "open")
    }
    if len(by["yes"]) == len(rows):
        return "yes", f"The student may replace the teacher at {_fars(rows)}."
    said = []
    if by["yes"]:
        said.append(f"The student may replace the teacher at {_fars(by['yes'])}")
    if by["no"]:
        lost = ", ".join(f"{100 * row.loss:.2f}" for row in by["no"])
        what = "not at" if said else "The student does not replace the teacher at"
        said.append(f"{what} {_fars(by['no'])}, where TAR loses {lost} points")
    if by["open"]:
        what = "at" if said else "At"
        said.append(f"{what} {_fars(by['open'])} there are too few pairs to tell")
    level: Level = "partly" if by["yes"] else "no" if by["no"] else "unknown"
    return level, "; ".join(said) + "."


def _fars(rows: Sequence[AtFar]) -> str:
    """In words, as ``FAR 0.01, 0.001 and 0.0001``."""
    names = [f"{row.far:g}" for row in rows]
    *first, last = names
    return f"FAR {', '.join(first)} and {last}" if first else f"FAR {last}"
