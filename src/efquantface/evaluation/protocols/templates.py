"""The protocols of templates: 1:1 verification and 1:N identification, and mixed galleries."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from efquantface.errors import EvaluationError
from efquantface.evaluation.benchmarks.gallery import GallerySet
from efquantface.evaluation.benchmarks.ijb import TemplateSet
from efquantface.evaluation.identification import FPIRS, Search, search
from efquantface.evaluation.items import Embedded, Options
from efquantface.evaluation.metrics import Scores, supported_fars, tar_at_far, why_left_out
from efquantface.evaluation.paired import (
    ACROSS,
    Embeddings,
    add_curves,
    at_threshold,
    compatibility,
    histogram,
    plain_metric,
    tar_metric,
    thresholds,
)
from efquantface.evaluation.result import Curves, Metric, Mixed, ProtocolResult
from efquantface.evaluation.templates import score_template_pairs
from efquantface.rows import mean_cosine, unit

RANKS = (1, 5)
Numbers = npt.NDArray[np.int64]
Rows = dict[str, Embeddings]


def score_templates(
    item: TemplateSet, models: dict[str, Embedded], options: Options
) -> list[ProtocolResult]:
    """1:1 and 1:N results of an IJB set, for which its lists exist.

    Raises:
        EvaluationError: an embedding is not finite, or the set cannot be scored.
    """
    results = []
    rows = {n: unit(e.rows, f"{item.name}, {n}") for n, e in models.items()}
    flags = f"template flags {options.templates}, cosine"
    if len(item.a):
        results.append(verification(item, rows, options, flags))
    if item.probes is not None:
        templates, subjects = item.probes
        probes = {n: r[np.searchsorted(item.ids, templates)] for n, r in rows.items()}
        galleries = {
            part: ({n: r[np.searchsorted(item.ids, t)] for n, r in rows.items()}, s)
            for part, (t, s) in item.galleries.items()
        }
        results.append(identification(item.name, galleries, (probes, subjects), flags))
    return results


def score_gallery(
    item: GallerySet, models: dict[str, Embedded], options: Options
) -> list[ProtocolResult]:
    """1:N results of a folder.

    Raises:
        EvaluationError: an embedding is not finite, or nobody in the probes is enrolled.
    """
    count = len(item.gallery)
    enrolled = {n: item.enrolled(e.rows) for n, e in models.items()}
    people = next(iter(enrolled.values()))[1]
    probes = {n: unit(e.rows[count:], f"{item.name}, {n}") for n, e in models.items()}
    gallery = {"folder": ({n: rows for n, (rows, _) in enrolled.items()}, people)}
    return [identification(item.name, gallery, (probes, item.subjects[1]), options.text)]


def verification(item: TemplateSet, rows: Rows, options: Options, flags: str) -> ProtocolResult:
    """TAR@FAR of template pairs, at all FARs that the impostor pairs support.

    Raises:
        EvaluationError: all pairs are genuine or all impostor.
    """
    a, b = np.searchsorted(item.ids, item.a), np.searchsorted(item.ids, item.b)
    same = item.same
    if same.all() or not same.any():
        raise EvaluationError(f"{item.name}: genuine and impostor pairs are both needed")
    split = {n: _divided(score_template_pairs(r, r, a, b), same) for n, r in rows.items()}
    counts = {
        "genuine": int(same.sum()),
        "impostor": int((~same).sum()),
        "images": len(item.names),
        "templates": len(item.ids),
    }
    fars = supported_fars(counts["impostor"])
    genuine = {n: g for n, (g, _) in split.items()}
    metrics = [
        tar_metric(far, {n: tar_at_far(*s, far) for n, s in split.items()}, genuine, a[same])
        for far in fars
    ]
    metrics += at_threshold(split, options.threshold)
    searched: list[Mixed] = []
    if "student" in rows:
        cosine = mean_cosine(rows["teacher"], rows["student"])
        metrics.append(
            Metric("cosine to teacher", None, student=cosine, note="mean over templates")
        )
        mixed = {
            gallery: _divided(score_template_pairs(rows[gallery], rows[probe], a, b), same)
            for gallery, probe in ACROSS
        }
        across, searched = compatibility(split, mixed, fars)
        metrics += across
    curves = Curves()
    for name, (g, i) in split.items():
        add_curves(curves, name, g, i, None, histogram(i))
    left_out = why_left_out(counts["genuine"], counts["impostor"])
    return ProtocolResult(
        f"{item.name} 1:1", counts, flags, metrics, curves, left_out=left_out, mixed=searched
    )


def _divided(scores: Scores, same: npt.NDArray[np.bool_]) -> tuple[Scores, Scores]:
    return scores[same], scores[~same]


def identification(
    name: str,
    galleries: dict[str, tuple[Rows, Numbers]],
    probes: tuple[Rows, Numbers],
    flags: str,
) -> ProtocolResult:
    """Rank-1, rank-5 and TPIR@FPIR, each the mean over galleries, as IJB defines them.

    TPIR is the share of mated probes whose own identity scores at or above the threshold, at any rank.
    The threshold is the smallest at which at most the share FPIR of non-mated probes finds anyone.

    Args:
        name: of the set.
        galleries: by name the rows (G,D) of each model, and subjects (G,).
        probes: rows (P,D) of each model, and subjects (P,).
        flags: how embeddings were made.

    Raises:
        EvaluationError: an embedding is not finite, or no probe's identity is enrolled.
    """
    rows, subjects = probes
    models = list(rows)
    pairs = {(n, n) for n in models}
    if "student" in models:
        pairs |= set(ACROSS)
    found: dict[tuple[str, str], list[Search]] = {
        (g, p): [search(r[g], s, rows[p], subjects) for r, s in galleries.values()]
        for g, p in sorted(pairs)
    }
    own = {n: found[n, n] for n in models}
    counts = {
        "genuine": sum(int(s.enrolled.sum()) for s in own["teacher"]),
        "impostor": sum(int((~s.enrolled).sum()) for s in own["teacher"]),
        "images": len(subjects),
    }
    metrics = [
        plain_metric(f"rank-{k}", {n: _mean(s.rank_rate(k) for s in x) for n, x in own.items()})
        for k in RANKS
    ]
    open_set = all((~s.enrolled).any() for s in own["teacher"])
    for fpir in FPIRS if open_set else ():
        values = {n: _mean(s.tpir(s.threshold(fpir)) for s in x) for n, x in own.items()}
        metric = plain_metric(f"TPIR@FPIR={fpir:g}", values)
        metric.note = thresholds({n: _mean(s.threshold(fpir) for s in x) for n, x in own.items()})
        metrics.append(metric)
    if "student" in models:
        metrics += _across(found, own, open_set)
    left_out = [] if open_set else ["TPIR@FPIR left out: every probe's identity is enrolled"]
    return ProtocolResult(f"{name} 1:N", counts, flags, metrics, Curves(), left_out=left_out)


def _across(
    found: dict[tuple[str, str], list[Search]], own: dict[str, list[Search]], open_set: bool
) -> list[Metric]:
    """Metrics of a gallery enrolled with one model and searched with the other."""
    metrics = []
    for gallery, probe in ACROSS:
        mixed = found[gallery, probe]
        what = f"{gallery}'s gallery, {probe}'s probes"
        values = {
            gallery: _mean(s.rank_rate(1) for s in own[gallery]),
            probe: _mean(s.rank_rate(1) for s in mixed),
        }
        metrics.append(Metric(f"{what}: rank-1", values["teacher"], student=values["student"]))
        if not open_set:
            continue
        cuts = [s.threshold(FPIRS[-1]) for s in own[gallery]]
        values = {
            gallery: _mean(s.tpir(t) for s, t in zip(own[gallery], cuts, strict=True)),
            probe: _mean(s.tpir(t) for s, t in zip(mixed, cuts, strict=True)),
        }
        fpir = _mean(
            float((s.other[~s.enrolled] >= t).mean()) for s, t in zip(mixed, cuts, strict=True)
        )
        metrics.append(
            Metric(
                f"{what}: TPIR",
                values["teacher"],
                student=values["student"],
                note=f"at the {gallery}'s own thresholds of FPIR={FPIRS[-1]:g}; FPIR there {fpir:.2g}",
            )
        )
    return metrics


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
