"""Evaluation of a teacher, or of a teacher and a student, on any evaluation item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from efquantface.errors import EvaluationError
from efquantface.evaluation.allpairs_protocol import score_people
from efquantface.evaluation.compare import Embeddings
from efquantface.evaluation.gallery import GallerySet
from efquantface.evaluation.ijb import TemplateSet
from efquantface.evaluation.items import Embedded, EvalItem, Options, Progress
from efquantface.evaluation.pair_protocol import score_pairs
from efquantface.evaluation.protocol import ProtocolResult
from efquantface.evaluation.sets import EvalSet
from efquantface.evaluation.template_protocol import score_gallery, score_templates


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
