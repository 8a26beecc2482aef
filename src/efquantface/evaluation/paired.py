"""Metrics that all protocols share, of one model, or of teacher and student side by side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from efquantface.evaluation.allpairs import BINS
from efquantface.evaluation.bootstrap import Interval, mean_interval
from efquantface.evaluation.metrics import Operating, Scores, rates_at, roc_curve, tar_at_far
from efquantface.evaluation.result import Curves, Metric, Mixed

Embeddings = npt.NDArray[np.float32]
ACROSS = (("teacher", "student"), ("student", "teacher"))  # model of the gallery, of the probes


def metric_of(
    name: str,
    values: dict[str, float],
    intervals: dict[str, Interval],
    difference: Interval | None,
    note: str,
    negate: bool = False,
) -> Metric:
    """A metric with intervals, of the models in ``values``.

    Args:
        name: for tables.
        values, intervals: by ``teacher`` and ``student``.
        difference: the interval of teacher minus student; with ``negate``, of student minus teacher.
        note: shown beside the numbers.
        negate: see ``difference``.
    """
    metric = Metric(name, values["teacher"], intervals["teacher"], note=note)
    if "student" in values:
        metric.student, metric.student_interval = values["student"], intervals["student"]
        metric.loss = values["teacher"] - values["student"]
        if difference is not None and negate:
            difference = (-difference[1], -difference[0])
        metric.loss_interval = difference
    return metric


def tar_metric(
    far: float,
    points: dict[str, Operating],
    genuine: dict[str, Scores],
    groups: npt.NDArray[np.int64],
) -> Metric:
    """TAR at exact thresholds; intervals resample whole ``groups`` (K,) at fixed thresholds."""
    accepted = {n: genuine[n] >= p.threshold for n, p in points.items()}
    return metric_of(
        f"TAR@FAR={far:g}",
        {n: p.tar for n, p in points.items()},
        {n: mean_interval(a.astype(float), groups=groups) for n, a in accepted.items()},
        mean_interval(difference(accepted), groups=groups),
        thresholds({n: p.threshold for n, p in points.items()}),
    )


def plain_metric(name: str, values: dict[str, float]) -> Metric:
    """A metric without intervals."""
    student = values.get("student")
    loss = None if student is None else values["teacher"] - student
    return Metric(name, values["teacher"], student=student, loss=loss)


def difference(decisions: dict[str, npt.NDArray[np.bool_]]) -> npt.NDArray[np.float64]:
    """Teacher's decisions minus student's (P,): -1, 0 or 1; zeros for a single model."""
    teacher = decisions["teacher"].astype(float)
    return np.asarray(teacher - decisions.get("student", decisions["teacher"]).astype(float))


def thresholds(values: dict[str, float]) -> str:
    """The models' thresholds, as a note."""
    if len(values) == 1:
        return f"threshold {next(iter(values.values())):.4f}"
    return "thresholds " + ", ".join(f"{n} {value:.4f}" for n, value in values.items())


def histogram(scores: Scores) -> npt.NDArray[np.int64]:
    """Counts over [-1, 1] in ``BINS`` bins."""
    bins = np.clip(((scores + 1) * (BINS / 2)).astype(np.int32), 0, BINS - 1)
    return np.bincount(bins, minlength=BINS)


def add_curves(
    curves: Curves,
    name: str,
    genuine: Scores,
    impostor: Scores,
    total: int | None,
    counts: npt.NDArray[np.int64],
) -> None:
    """Add a model's ROC and histograms; ``impostor`` are the largest of ``total`` scores."""
    far, tar = roc_curve(genuine, impostor, total)
    curves.roc[name] = (far.tolist(), tar.tolist())
    coarse = BINS // 100
    curves.genuine[name] = histogram(genuine).reshape(-1, coarse).sum(axis=1).tolist()
    curves.impostor[name] = counts.reshape(-1, coarse).sum(axis=1).tolist()


def _searched(far: float, own: Operating, mixed: tuple[Scores, Scores], total: int | None) -> Mixed:
    """A gallery searched with the other model's probes, at the threshold of the gallery's model.

    Args:
        far: of the threshold, for the gallery's model.
        own: the gallery's model with its own probes.
        mixed: genuine and impostor scores across.
        total: number of impostor pairs across, where ``mixed`` holds only the largest scores.
    """
    genuine, impostor = mixed
    accepted = int((impostor >= own.threshold).sum())
    tar = float((genuine >= own.threshold).mean())
    return Mixed(far, own.tar, tar, accepted / (total or len(impostor)))


def compatibility(
    own: dict[str, tuple[Scores, Scores]],
    mixed: dict[str, tuple[Scores, Scores]],
    fars: list[float],
    totals: tuple[int, int] | None = None,
) -> tuple[list[Metric], list[Mixed]]:
    """Mixed galleries, and the two models' thresholds of equal FAR.

    Args:
        own: genuine and impostor scores within ``teacher`` and within ``student``.
        mixed: genuine and impostor scores of a gallery with the other model's probes, by the gallery's
            model.
        fars: FARs of the thresholds; mixed galleries are reported at the last one.
        totals: number of impostor pairs of ``own`` and of ``mixed``, where they hold only the largest
            scores.

    Returns:
        Metrics: TAR and FAR of mixed pairs at the threshold of the gallery's model, and the thresholds
        of equal FAR. Then the teacher's gallery with the student's probes, at every FAR.
    """
    total, across = totals or (None, None)
    points = {n: [tar_at_far(*scores, far, total) for far in fars] for n, scores in own.items()}
    found = []
    for gallery, probe in ACROSS if fars else ():
        point = points[gallery][-1]
        searched = _searched(fars[-1], point, mixed[gallery], across)
        values = {gallery: point.tar, probe: searched.tar}
        found.append(
            Metric(
                f"{gallery}'s gallery, {probe}'s probes",
                values["teacher"],
                student=values["student"],
                note=f"TAR of mixed pairs ({probe}'s column) at the {gallery}'s threshold "
                f"{point.threshold:.4f}, where its own FAR is {point.far:g}; FAR there "
                f"{searched.far:.2g}",
            )
        )
    for place, far in enumerate(fars):
        values = {name: at[place].threshold for name, at in points.items()}
        found.append(
            Metric(f"threshold at FAR={far:g}", values["teacher"], student=values["student"])
        )
    pairs = zip(fars, points["teacher"], strict=True)
    return found, [_searched(far, point, mixed["teacher"], across) for far, point in pairs]


def at_threshold(split: dict[str, tuple[Scores, Scores]], threshold: float | None) -> list[Metric]:
    """FAR and FRR of each model at the deployed threshold; empty where none is given."""
    if threshold is None:
        return []
    rates = {n: rates_at(g, i, threshold) for n, (g, i) in split.items()}
    return [
        plain_metric(f"FAR at {threshold:g}", {n: r[0] for n, r in rates.items()}),
        plain_metric(f"FRR at {threshold:g}", {n: r[1] for n, r in rates.items()}),
    ]
