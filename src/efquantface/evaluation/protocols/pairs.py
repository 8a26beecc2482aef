"""The protocol of listed pairs: accuracy over folds, TAR@FAR, EER, AUC, mixed galleries, changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from efquantface.errors import EvaluationError
from efquantface.evaluation.arcface import grid_accuracy
from efquantface.evaluation.bootstrap import mean_interval, tar_intervals
from efquantface.evaluation.groups import pair_groups
from efquantface.evaluation.items import Embedded, Options
from efquantface.evaluation.metrics import (
    FoldAccuracy,
    Scores,
    area_under_roc,
    equal_error_rate,
    fold_accuracy,
    supported_fars,
    tar_at_far,
    why_left_out,
)
from efquantface.evaluation.paired import (
    ACROSS,
    Embeddings,
    add_curves,
    at_threshold,
    compatibility,
    difference,
    histogram,
    metric_of,
    plain_metric,
    thresholds,
)
from efquantface.evaluation.result import Curves, Metric, Mixed, ProtocolResult
from efquantface.evaluation.sets import EvalSet, Pairs
from efquantface.rows import mean_cosine, unit


def score_pairs(
    item: EvalSet, pairs: Pairs, models: dict[str, Embedded], options: Options
) -> ProtocolResult:
    """All metrics of an evaluation set's listed pairs.

    Args:
        item: the set.
        pairs: its pairs.
        models: ``teacher``, and ``student`` where there are two.
        options: those that the embeddings were made with.

    Raises:
        EvaluationError: all pairs are genuine or all impostor, or an embedding is not finite.
    """
    same = pairs.same
    if same.all() or not same.any():
        raise EvaluationError(f"{item.name}: genuine and impostor pairs are both needed")
    rows = {name: unit(e.rows, f"{item.name}, {name}") for name, e in models.items()}
    scores = {name: pair_scores(r, r, pairs) for name, r in rows.items()}
    split = {name: (s[same], s[~same]) for name, s in scores.items()}
    counts = {
        "genuine": int(same.sum()),
        "impostor": int((~same).sum()),
        "images": len(item.faces),
        "dropped": len(pairs.dropped),
    }
    folds = {name: fold_accuracy(s, same, pairs.folds) for name, s in scores.items()}
    metrics = [_accuracy(folds)]
    if options.arcface:
        metrics += _arcface(models, pairs)
    metrics += [_tar(split, far) for far in supported_fars(counts["impostor"])]
    metrics.append(plain_metric("EER", {n: equal_error_rate(g, i) for n, (g, i) in split.items()}))
    metrics.append(plain_metric("AUC", {n: area_under_roc(g, i) for n, (g, i) in split.items()}))
    metrics += at_threshold(split, options.threshold)
    changed: list[tuple[int, int, bool, float, float]] = []
    searched: list[Mixed] = []
    if "student" in models:
        metrics.append(
            Metric(
                "cosine to teacher",
                None,
                student=mean_cosine(rows["teacher"], rows["student"]),
                note="mean over the set's images",
            )
        )
        mixed = {g: pair_scores(rows[g], rows[p], pairs) for g, p in ACROSS}
        across, searched = compatibility(
            split,
            {n: (s[same], s[~same]) for n, s in mixed.items()},
            supported_fars(counts["impostor"]),
        )
        metrics += across
        changed = _changed(pairs, scores, folds)
    if options.groups:
        metrics += pair_groups(item.faces, pairs, scores, folds, options.groups)
    curves = Curves()
    for name, (g, i) in split.items():
        add_curves(curves, name, g, i, None, histogram(i))
    return ProtocolResult(
        f"{item.name} pairs",
        counts,
        options.text,
        metrics,
        curves,
        changed,
        [*pairs.left_out(), *why_left_out(counts["genuine"], counts["impostor"])],
        searched,
    )


def pair_scores(first: Embeddings, second: Embeddings, pairs: Pairs) -> Scores:
    """Cosines float32 (P,) of pairs; ``first`` (N,D) is for side a, ``second`` for b, of length 1."""
    return np.asarray((first[pairs.a] * second[pairs.b]).sum(axis=1), np.float32)


def _accuracy(folds: dict[str, FoldAccuracy]) -> Metric:
    first = folds["teacher"]
    note = f"{len(first.thresholds)} folds, SD teacher {first.std:.4f}"
    if "student" in folds:
        note += f", student {folds['student'].std:.4f}"
    return metric_of(
        "accuracy",
        {n: f.mean for n, f in folds.items()},
        {n: mean_interval(f.correct.astype(float)) for n, f in folds.items()},
        mean_interval(difference({n: f.correct for n, f in folds.items()})),
        note,
    )


def _arcface(models: dict[str, Embedded], pairs: Pairs) -> list[Metric]:
    values, spreads, lengths = {}, [], {}
    for name, model in models.items():
        values[name], spread = grid_accuracy(model.rows[pairs.a], model.rows[pairs.b], pairs.same)
        spreads.append(f"{name} +-{spread:.5f}")
        if model.lengths is not None:  # over the sides of all pairs, as arcface_torch does
            lengths[name] = float(
                (model.lengths[pairs.a].mean() + model.lengths[pairs.b].mean()) / 2
            )
    accuracy = plain_metric("arcface_torch Accuracy-Flip", values)
    accuracy.note = ", ".join(spreads) + "; thresholds 0 to 4 in steps of 0.01"
    if not lengths:
        return [accuracy]
    name = "length, arcface_torch XNorm"
    return [accuracy, Metric(name, lengths["teacher"], student=lengths.get("student"))]


def _tar(split: dict[str, tuple[Scores, Scores]], far: float) -> Metric:
    points = {n: tar_at_far(g, i, far) for n, (g, i) in split.items()}
    intervals = tar_intervals(split, far)
    return metric_of(
        f"TAR@FAR={far:g}",
        {n: p.tar for n, p in points.items()},
        {n: intervals[n] for n in split},
        intervals.get("student - teacher"),
        thresholds({n: p.threshold for n, p in points.items()}),
        negate=True,
    )


def _changed(
    pairs: Pairs, scores: dict[str, Scores], folds: dict[str, FoldAccuracy]
) -> list[tuple[int, int, bool, float, float]]:
    where: npt.NDArray[np.int64] = np.flatnonzero(
        folds["teacher"].correct != folds["student"].correct
    )
    return [
        (
            int(pairs.a[i]),
            int(pairs.b[i]),
            bool(pairs.same[i]),
            float(scores["teacher"][i]),
            float(scores["student"][i]),
        )
        for i in where
    ]
