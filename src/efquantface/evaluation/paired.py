"""Metrics of one model, or of a teacher and a student side by side: what all protocols share."""

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

    ``negate``: the difference given is student minus teacher, the loss is its negative.
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
    """TAR at exact thresholds; intervals resample whole ``groups`` (K,), thresholds held."""
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
    """Teacher's decision minus student's, pair by pair (zeros for one model)."""
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


def mixed_at(
    own: tuple[Scores, Scores],
    mixed: tuple[Scores, Scores],
    fars: list[float],
    totals: tuple[int, int] | None = None,
) -> list[Mixed]:
    """The student's probes in the teacher's gallery, at the teacher's threshold of each FAR.

    Args:
        own: genuine and impostor scores of the teacher.
        mixed: the same with the probe embedded by the student.
        totals: number of impostor pairs of both, where only the largest are held.
    """
    found = []
    for far in fars:
        point = tar_at_far(*own, far, totals and totals[0])
        genuine, impostor = mixed
        accepted = int((impostor >= point.threshold).sum())
        share = accepted / (totals[1] if totals else len(impostor))
        tar = float((genuine >= point.threshold).mean())
        found.append(Mixed(far, point.tar, tar, share))
    return found


def compatibility(
    own: dict[str, tuple[Scores, Scores]],
    mixed: dict[str, tuple[Scores, Scores]],
    fars: list[float],
    totals: tuple[int, int] | None = None,
) -> tuple[list[Metric], list[Mixed]]:
    """What a deployment asks: do enrolled galleries still match, and which threshold becomes which.

    Args:
        own: genuine and impostor scores of ``teacher`` and ``student`` among themselves.
        mixed: the same with one side of each pair embedded by the other model, by the model of the
            gallery.
        fars: the thresholds are given at these; galleries are matched at the last one.
        totals: number of impostor pairs of ``own`` and ``mixed``, where only the largest are held.

    Returns:
        The TAR of mixed pairs at the threshold that is deployed for the gallery's own model (with the
        FAR that they have there), and the thresholds of equal FAR; then the teacher's gallery with the
        student's probes at every FAR.
    """
    found = []
    if fars:
        for gallery, probe in ACROSS:
            genuine, impostor = mixed[gallery]
            point = tar_at_far(*own[gallery], fars[-1], totals and totals[0])
            accepted = int((impostor >= point.threshold).sum())
            far = accepted / (totals[1] if totals else len(impostor))
            values = {gallery: point.tar, probe: float((genuine >= point.threshold).mean())}
            found.append(
                Metric(
                    f"{gallery}'s gallery, {probe}'s probes",
                    values["teacher"],
                    student=values["student"],
                    note=f"TAR of mixed pairs ({probe}'s column) at the {gallery}'s threshold "
                    f"{point.threshold:.4f}, where its own FAR is {point.far:g}; FAR there {far:.2g}",
                )
            )
    for far in fars:
        values = {n: tar_at_far(*own[n], far, totals and totals[0]).threshold for n in own}
        found.append(
            Metric(f"threshold at FAR={far:g}", values["teacher"], student=values["student"])
        )
    return found, mixed_at(own["teacher"], mixed["teacher"], fars, totals)


def at_threshold(split: dict[str, tuple[Scores, Scores]], threshold: float | None) -> list[Metric]:
    """FAR and FRR of each model at a threshold that is deployed; none where none is given."""
    if threshold is None:
        return []
    rates = {n: rates_at(g, i, threshold) for n, (g, i) in split.items()}
    return [
        plain_metric(f"FAR at {threshold:g}", {n: r[0] for n, r in rates.items()}),
        plain_metric(f"FRR at {threshold:g}", {n: r[1] for n, r in rates.items()}),
    ]
