"""The protocol of all pairs: TAR at small FARs, same decisions, mixed galleries."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from efquantface.evaluation.allpairs import BINS, AllPairs, score_all_pairs
from efquantface.evaluation.groups import people_groups
from efquantface.evaluation.items import Embedded, Options
from efquantface.evaluation.metrics import (
    Operating,
    supported_fars,
    tar_at_far,
    why_left_out,
)
from efquantface.evaluation.paired import (
    ACROSS,
    Embeddings,
    add_curves,
    compatibility,
    plain_metric,
    tar_metric,
)
from efquantface.evaluation.result import Curves, Metric, Mixed, ProtocolResult
from efquantface.evaluation.sets import EvalSet
from efquantface.interfaces import Progress
from efquantface.rows import mean_cosine, unit


def score_people(
    item: EvalSet, models: dict[str, Embedded], options: Options, progress: Progress | None = None
) -> ProtocolResult:
    """All metrics over every pair of an evaluation set's images.

    Args:
        item: the set.
        models: ``teacher``, and ``student`` where there are two.
        options: those that the embeddings were made with.
        progress: called with (done, total).

    Raises:
        EvaluationError: an embedding is not finite or has length zero.
    """
    identities = item.faces.identities
    rows = {n: unit(e.rows, f"{item.name}, {n}") for n, e in models.items()}
    found = {n: score_all_pairs(r, identities, progress) for n, r in rows.items()}
    first = found["teacher"]
    counts = {
        "genuine": len(first.genuine),
        "impostor": first.impostors,
        "images": len(identities),
    }
    labelled = len(first.genuine) > 0 and first.impostors > 0
    fars = [f for f in supported_fars(first.impostors) if f <= first.kept_far]
    genuine = {n: r.genuine for n, r in found.items()}
    metrics = [
        tar_metric(
            far, {n: _point(r, far) for n, r in found.items()}, genuine, first.genuine_identity
        )
        for far in (fars if labelled else [])
    ]
    curves = Curves()
    for name, result in found.items() if labelled else ():
        add_curves(
            curves,
            name,
            result.genuine,
            result.top_impostors,
            result.impostors,
            result.impostor_histogram,
        )
    if options.threshold is not None and labelled:
        rates = {n: rates_of(result, options.threshold) for n, result in found.items()}
        for position, what in enumerate(("FAR", "FRR")):
            values = {n: r[position] for n, r in rates.items()}
            metrics.append(plain_metric(f"{what} at {options.threshold:g}", values))
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
        metrics += _agreement(rows, first, fars)
        if labelled and fars:
            across, searched = _across(rows, found, identities, fars, progress)
            metrics += across
    if options.groups and labelled and fars:
        points = {n: _point(r, fars[-1]).threshold for n, r in found.items()}
        metrics += people_groups(item.faces, rows, points, fars[-1], options.groups)
    left_out = why_left_out(len(first.genuine), first.impostors)
    return ProtocolResult(
        f"{item.name} all pairs",
        counts,
        options.text,
        metrics,
        curves,
        left_out=left_out,
        mixed=searched,
    )


def _across(
    rows: dict[str, Embeddings],
    found: dict[str, AllPairs],
    identities: npt.NDArray[np.int64],
    fars: list[float],
    progress: Progress | None,
) -> tuple[list[Metric], list[Mixed]]:
    own = {n: (r.genuine, r.top_impostors) for n, r in found.items()}
    mixed = {
        gallery: score_all_pairs(rows[gallery], identities, progress, probes=rows[probe])
        for gallery, probe in ACROSS
    }
    return compatibility(
        own,
        {n: (r.genuine, r.top_impostors) for n, r in mixed.items()},
        fars,
        (found["teacher"].impostors, mixed["teacher"].impostors),
    )


def _point(result: AllPairs, far: float) -> Operating:
    return tar_at_far(result.genuine, result.top_impostors, far, result.impostors)


def _agreement(rows: dict[str, Embeddings], teacher: AllPairs, fars: list[float]) -> list[Metric]:
    """Shares of pairs with the same decision at the teacher's thresholds, on up to 2,000 images.

    One share is of all pairs, most of which both models reject. The other is of the pairs that either
    model accepts. Without genuine pairs (one image per person), FAR is a share of all pairs.
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
        metrics.append(Metric(f"same decisions at teacher's FAR={far:g}", None, student=share))
        if either:
            metrics.append(
                Metric(
                    f"same accepted pairs at teacher's FAR={far:g}",
                    None,
                    student=float(both.sum() / either),
                    note="share of the pairs accepted by either model that both accept",
                )
            )
    return metrics


def rates_of(result: AllPairs, threshold: float) -> tuple[float, float]:
    """(FAR, FRR) at a threshold; the FAR is from the histogram where exact scores are not kept."""
    top = result.top_impostors
    if len(top) and threshold > top.min():
        accepted = int((top >= threshold).sum())
    else:
        first = int(np.clip((threshold + 1) * BINS / 2, 0, BINS - 1))
        accepted = int(result.impostor_histogram[first:].sum())
    return accepted / result.impostors, float((result.genuine < threshold).mean())
