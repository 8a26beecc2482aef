"""Teacher against student on an evaluation set: the numbers of tables, metrics.json and reports."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from efquantface.errors import EvaluationError
from efquantface.evaluation.allpairs import BINS, AllPairs, score_all_pairs
from efquantface.evaluation.bootstrap import Interval, mean_interval, tar_intervals
from efquantface.evaluation.metrics import (
    Operating,
    Scores,
    area_under_roc,
    equal_error_rate,
    fold_accuracy,
    rates_at,
    roc_curve,
    supported_fars,
    tar_at_far,
    unit,
)
from efquantface.evaluation.protocol import Curves, Metric, ProtocolResult
from efquantface.evaluation.sets import EvalSet, Pairs

Embeddings = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]


def flags_text(flip: bool) -> str:
    """The flags that every number is stated with."""
    return f"flip {'on' if flip else 'off'}, embeddings normalized, cosine"


def evaluate_set(
    eval_set: EvalSet,
    teacher: Embeddings,
    student: Embeddings | None = None,
    *,
    flip: bool = False,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> list[ProtocolResult]:
    """Score a set's protocols for a teacher, or for a teacher and a student.

    Args:
        eval_set: faces and protocol.
        teacher, student: embeddings (N,D) of the set's faces, not normalized.
        flip: whether they hold the mirror image too (stated, not computed, here).
        threshold: a cosine already deployed, for which FAR and FRR are added.

    Raises:
        EvaluationError: embeddings that are not finite, or sets that cannot be scored.
    """
    results = []
    models = {"teacher": teacher} if student is None else {"teacher": teacher, "student": student}
    flags = flags_text(flip)
    if eval_set.pairs is not None:
        results.append(_listed_pairs(eval_set, eval_set.pairs, models, flags, threshold))
    if eval_set.all_pairs or eval_set.pairs is None:
        results.append(_all_pairs(eval_set, models, flags, threshold, progress))
    return results


def _listed_pairs(
    eval_set: EvalSet,
    pairs: Pairs,
    models: dict[str, Embeddings],
    flags: str,
    threshold: float | None,
) -> ProtocolResult:
    same = pairs.same
    if same.all() or not same.any():
        raise EvaluationError(f"{eval_set.name}: genuine and impostor pairs are both needed")
    rows = {name: unit(e, name) for name, e in models.items()}
    scores: dict[str, Scores] = {
        name: np.asarray((e[pairs.a] * e[pairs.b]).sum(axis=1), np.float32)
        for name, e in rows.items()
    }
    split = {name: (s[same], s[~same]) for name, s in scores.items()}
    counts = {
        "genuine": int(same.sum()),
        "impostor": int((~same).sum()),
        "images": len(eval_set.faces),
        "dropped": len(pairs.dropped),
    }
    metrics = []
    folds = {name: fold_accuracy(s, same, pairs.folds) for name, s in scores.items()}
    metrics.append(
        _metric(
            "accuracy",
            {n: f.mean for n, f in folds.items()},
            {n: mean_interval(f.correct.astype(float)) for n, f in folds.items()},
            mean_interval(_difference({n: f.correct for n, f in folds.items()})),
            f"{len(np.unique(pairs.folds))} folds, SD teacher {folds['teacher'].std:.4f}"
            + (f", student {folds['student'].std:.4f}" if "student" in folds else ""),
        )
    )
    for far in supported_fars(counts["impostor"]):
        points = {n: tar_at_far(g, i, far) for n, (g, i) in split.items()}
        intervals = tar_intervals(split, far)
        metrics.append(
            _metric(
                f"TAR@FAR={far:g}",
                {n: p.tar for n, p in points.items()},
                {n: intervals[n] for n in models},
                intervals.get("student - teacher"),
                _thresholds(points),
                negate=True,
            )
        )
    metrics.append(_plain("EER", {n: equal_error_rate(g, i) for n, (g, i) in split.items()}))
    metrics.append(_plain("AUC", {n: area_under_roc(g, i) for n, (g, i) in split.items()}))
    metrics += _at_threshold(split, threshold)
    changed: list[tuple[int, int, bool, float, float]] = []
    if "student" in folds:
        metrics.append(
            Metric("cosine to teacher", _cosine(rows), note="mean over the set's images")
        )
        mixed = np.asarray((rows["teacher"][pairs.a] * rows["student"][pairs.b]).sum(1), np.float32)
        metrics += _gallery(mixed[same], mixed[~same], split["teacher"])
        where = np.flatnonzero(folds["teacher"].correct != folds["student"].correct)
        changed = [
            (
                int(pairs.a[i]),
                int(pairs.b[i]),
                bool(same[i]),
                float(scores["teacher"][i]),
                float(scores["student"][i]),
            )
            for i in where
        ]
    curves = Curves()
    for name, (g, i) in split.items():
        _add_curves(curves, name, g, i, None, _histogram(i))
    return ProtocolResult(f"{eval_set.name} pairs", counts, flags, metrics, curves, changed)


def _all_pairs(
    eval_set: EvalSet,
    models: dict[str, Embeddings],
    flags: str,
    threshold: float | None,
    progress: Progress | None,
) -> ProtocolResult:
    identities = eval_set.faces.identities
    found = {n: score_all_pairs(e, identities, progress) for n, e in models.items()}
    first = found["teacher"]
    counts = {
        "genuine": len(first.genuine),
        "impostor": first.impostors,
        "images": len(identities),
    }
    metrics = []
    fars = [f for f in supported_fars(first.impostors) if f <= first.kept_far]
    if len(first.genuine):
        for far in fars:
            metrics.append(_all_pairs_tar(found, far))
    curves = Curves()
    for name, result in found.items():
        if len(result.genuine):
            _add_curves(
                curves,
                name,
                result.genuine,
                result.top_impostors,
                result.impostors,
                result.impostor_histogram,
            )
    if threshold is not None and len(first.genuine):
        rates = {n: _rates(result, threshold) for n, result in found.items()}
        metrics.append(_plain(f"FAR at {threshold:g}", {n: r[0] for n, r in rates.items()}))
        metrics.append(_plain(f"FRR at {threshold:g}", {n: r[1] for n, r in rates.items()}))
    if "student" in models:
        rows = {n: unit(e, n) for n, e in models.items()}
        metrics.append(
            Metric("cosine to teacher", _cosine(rows), note="mean over the set's images")
        )
        metrics += _agreement(rows, found["teacher"], fars)
        if len(first.genuine) and fars:
            mixed = score_all_pairs(
                models["teacher"], identities, progress, probes=models["student"]
            )
            metrics.append(_gallery_all(mixed, first, fars[-1]))
    return ProtocolResult(f"{eval_set.name} all pairs", counts, flags, metrics, curves)


def _all_pairs_tar(found: dict[str, AllPairs], far: float) -> Metric:
    """TAR at the exact threshold; intervals resample identities, thresholds held."""
    points = {n: tar_at_far(r.genuine, r.top_impostors, far, r.impostors) for n, r in found.items()}
    accepted = {n: (r.genuine >= points[n].threshold) for n, r in found.items()}
    groups = found["teacher"].genuine_identity
    return _metric(
        f"TAR@FAR={far:g}",
        {n: p.tar for n, p in points.items()},
        {n: mean_interval(a.astype(float), groups=groups) for n, a in accepted.items()},
        mean_interval(_difference(accepted), groups=groups),
        _thresholds(points),
    )


def _agreement(rows: dict[str, Embeddings], teacher: AllPairs, fars: list[float]) -> list[Metric]:
    """Share of pairs decided alike at the teacher's own thresholds, on up to 2,000 images.

    Without genuine pairs (one image a person) the thresholds are those that accept the share FAR
    of all pairs.
    """
    index = np.random.default_rng(30).permutation(len(rows["teacher"]))[:2000]
    t, s = rows["teacher"][index], rows["student"][index]
    upper = np.triu_indices(len(index), 1)
    a, b = (t @ t.T)[upper], (s @ s.T)[upper]
    metrics = []
    for far in fars[:3]:
        threshold = tar_at_far(
            np.ones(1, np.float32), teacher.top_impostors, far, teacher.impostors
        ).threshold
        accepted, both = a >= threshold, (a >= threshold) & (b >= threshold)
        share = float(((a >= threshold) == (b >= threshold)).mean())
        either = int((accepted | (b >= threshold)).sum())
        note = f"of pairs that either accepts, both accept {both.sum() / max(either, 1):.1%}"
        metrics.append(Metric(f"same decisions at teacher's FAR={far:g}", share, note=note))
    return metrics


def _gallery(genuine: Scores, impostor: Scores, own: tuple[Scores, Scores]) -> list[Metric]:
    """Teacher's gallery, student's probes, at the teacher's own threshold; none for few pairs."""
    fars = supported_fars(len(impostor))
    if not fars:
        return []
    point = tar_at_far(*own, fars[-1])
    return [_gallery_metric(point, genuine, impostor, len(impostor), own[0])]


def _gallery_all(mixed: AllPairs, own: AllPairs, far: float) -> Metric:
    point = tar_at_far(own.genuine, own.top_impostors, far, own.impostors)
    return _gallery_metric(point, mixed.genuine, mixed.top_impostors, mixed.impostors, own.genuine)


def _gallery_metric(
    point: Operating, genuine: Scores, impostor: Scores, total: int, own: Scores
) -> Metric:
    accepted = int((impostor >= point.threshold).sum())
    return Metric(
        "teacher's gallery, student's probes",
        float((own >= point.threshold).mean()),
        student=float((genuine >= point.threshold).mean()),
        note=f"TAR at the teacher's threshold {point.threshold:.4f}, where its own FAR is "
        f"{point.far:g}; FAR there {accepted / total:.2g}",
    )


def _at_threshold(split: dict[str, tuple[Scores, Scores]], threshold: float | None) -> list[Metric]:
    if threshold is None:
        return []
    rates = {n: rates_at(g, i, threshold) for n, (g, i) in split.items()}
    return [
        _plain(f"FAR at {threshold:g}", {n: r[0] for n, r in rates.items()}),
        _plain(f"FRR at {threshold:g}", {n: r[1] for n, r in rates.items()}),
    ]


def _rates(result: AllPairs, threshold: float) -> tuple[float, float]:
    """FAR and FRR; the FAR from the histogram where it lies beyond the exact scores."""
    top = result.top_impostors
    if len(top) and threshold > top.min():
        accepted = int((top >= threshold).sum())
    else:
        first = int(np.clip((threshold + 1) * BINS / 2, 0, BINS - 1))
        accepted = int(result.impostor_histogram[first:].sum())
    return accepted / result.impostors, float((result.genuine < threshold).mean())


def _metric(
    name: str,
    values: dict[str, float],
    intervals: dict[str, Interval],
    difference: Interval | None,
    note: str,
    negate: bool = False,
) -> Metric:
    """``negate``: the difference given is student minus teacher, the loss is its negative."""
    metric = Metric(name, values["teacher"], intervals["teacher"], note=note)
    if "student" in values:
        metric.student, metric.student_interval = values["student"], intervals["student"]
        metric.loss = values["teacher"] - values["student"]
        if difference is not None and negate:
            difference = (-difference[1], -difference[0])
        metric.loss_interval = difference
    return metric


def _plain(name: str, values: dict[str, float]) -> Metric:
    student = values.get("student")
    loss = None if student is None else values["teacher"] - student
    return Metric(name, values["teacher"], student=student, loss=loss)


def _difference(decisions: dict[str, npt.NDArray[np.bool_]]) -> npt.NDArray[np.float64]:
    """Teacher's decision minus student's, pair by pair (zeros for one model)."""
    teacher = decisions["teacher"].astype(float)
    return np.asarray(teacher - decisions.get("student", decisions["teacher"]).astype(float))


def _thresholds(points: dict[str, Operating]) -> str:
    return "thresholds " + ", ".join(f"{n} {p.threshold:.4f}" for n, p in points.items())


def _cosine(rows: dict[str, Embeddings]) -> float:
    return float((rows["teacher"] * rows["student"]).sum(axis=1).mean())


def _histogram(scores: Scores) -> npt.NDArray[np.int64]:
    bins = np.clip(((scores + 1) * (BINS / 2)).astype(np.int32), 0, BINS - 1)
    return np.bincount(bins, minlength=BINS)


def _add_curves(
    curves: Curves,
    name: str,
    genuine: Scores,
    impostor: Scores,
    total: int | None,
    histogram: npt.NDArray[np.int64],
) -> None:
    far, tar = roc_curve(genuine, impostor, total)
    curves.roc[name] = (far.tolist(), tar.tolist())
    coarse = BINS // 100
    curves.genuine[name] = _histogram(genuine).reshape(-1, coarse).sum(axis=1).tolist()
    curves.impostor[name] = histogram.reshape(-1, coarse).sum(axis=1).tolist()


def embedding_lengths(teacher: Embeddings, student: Embeddings) -> dict[str, float]:
    """How the student's embedding lengths follow the teacher's.

    Returns:
        ``ratio`` (mean of student length / teacher length) and ``rank_correlation`` (Spearman).
    """
    a, b = np.linalg.norm(teacher, axis=1), np.linalg.norm(student, axis=1)
    ranks = [np.argsort(np.argsort(v)).astype(float) for v in (a, b)]
    spread = ranks[0].std() * ranks[1].std()
    correlation = (
        float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / spread)
        if spread > 0
        else 1.0
    )
    return {"ratio": float((b / np.maximum(a, 1e-12)).mean()), "rank_correlation": correlation}
