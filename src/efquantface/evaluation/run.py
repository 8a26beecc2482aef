"""Evaluation of a teacher, or of a teacher and a student, on any evaluation item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.errors import EvaluationError
from efquantface.evaluation.benchmarks.gallery import GallerySet
from efquantface.evaluation.benchmarks.ijb import TemplateSet
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.groups import spread_of_sets
from efquantface.evaluation.items import Embedded, EvalItem, Options
from efquantface.evaluation.paired import Embeddings
from efquantface.evaluation.protocols.allpairs import score_people
from efquantface.evaluation.protocols.pairs import score_pairs
from efquantface.evaluation.protocols.templates import score_gallery, score_templates
from efquantface.evaluation.result import Curves, ProtocolResult
from efquantface.evaluation.sets import EvalSet
from efquantface.interfaces import Embeds, Progress


def score_item(
    item: EvalItem,
    embedded: Sequence[Embedded],
    options: Options,
    progress: Progress | None = None,
) -> list[ProtocolResult]:
    """All protocols of an item.

    Args:
        embedded: what :meth:`EvalItem.embed` gave for a model, or for teacher and student.
        options: those that the embeddings were made with.

    Raises:
        EvaluationError: embeddings that are not finite, or a set that cannot be scored.
    """
    models = dict(zip(("teacher", "student"), embedded, strict=False))
    if isinstance(item, TemplateSet):
        return score_templates(item, models, options)
    if isinstance(item, GallerySet):
        return score_gallery(item, models, options)
    if not isinstance(item, EvalSet):
        raise EvaluationError(f"{type(item).__name__} has no protocol")
    results = []
    if item.pairs is not None:
        results.append(score_pairs(item, item.pairs, models, options))
    if item.all_pairs or item.pairs is None:
        results.append(score_people(item, models, options, progress))
    return results


def evaluate_set(
    item: EvalSet,
    teacher: Embeddings,
    student: Embeddings | None = None,
    *,
    flip: bool = False,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> list[ProtocolResult]:
    """:func:`score_item` for embeddings (N,D) of a set's faces that are at hand."""
    return score_item(
        item,
        [Embedded(rows) for rows in (teacher, student) if rows is not None],
        Options(flip=flip, threshold=threshold),
        progress,
    )


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


def load_items(
    wanted: Sequence[str | EvalItem], contract: FaceContract, resize: bool, console: Console
) -> list[EvalItem]:
    """Everything that ``--eval`` names, loaded; what had to be left out is said."""
    items: list[EvalItem] = []
    for item in wanted:
        if isinstance(item, EvalItem):
            items.append(item)
            continue
        with console.bar(f"loading {item.partition('=')[0]}") as advance:
            loaded = load_eval(item, contract, resize=resize, progress=advance)
        for found in loaded:
            if isinstance(found, EvalSet):
                for name, why in found.faces.skipped[:5]:
                    console.warn(f"skipped {name}: {why}")
                if found.pairs is not None and found.pairs.dropped:
                    lost = len(found.pairs.dropped)
                    console.warn(f"{found.name}: {lost} pairs left out, unreadable images")
        items += loaded
    return items


def embed_item(
    item: EvalItem, embedder: Embeds, who: str, options: Options, console: Console
) -> Embedded:
    """A model's embeddings of an item, with a progress bar."""
    with console.bar(f"{item.name}: {who}") as advance:
        return item.embed(embedder, options, advance)


def families(items: Sequence[EvalItem], results: list[ProtocolResult]) -> list[ProtocolResult]:
    """The spread between the sets of a benchmark that comes in groups (RFW)."""
    found = []
    for family in sorted({i.family for i in items if isinstance(i, EvalSet) and i.family}):
        names = {f"{i.name} pairs" for i in items if isinstance(i, EvalSet) and i.family == family}
        members = [r for r in results if r.protocol in names]
        counts = {k: sum(r.counts[k] for r in members) for k in ("genuine", "impostor", "images")}
        found.append(
            ProtocolResult(
                f"{family} groups", counts, members[0].flags, spread_of_sets(members), Curves()
            )
        )
    return found
