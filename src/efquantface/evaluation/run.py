"""Evaluation of a teacher, or of a teacher and a student, on any evaluation item."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
from efquantface.evaluation.result import Curves, Evaluation, ProtocolResult
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
        item: the set.
        embedded: results of :meth:`EvalItem.embed` for a model, or for teacher and student.
        options: those that the embeddings were made with.
        progress: called with (done, total).

    Raises:
        EvaluationError: an embedding is not finite, or the set cannot be scored.
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
) -> Evaluation:
    """:func:`score_item` for given embeddings of a set's faces.

    Args:
        item: the set.
        teacher, student: embeddings float32 (N,D), not normalized, in the order of the set's images.
        flip: whether the mirror images' embeddings were added; only shown.
        threshold: the deployed threshold, a cosine; adds FAR and FRR there.
        progress: called with (done, total).

    Returns:
        One result per protocol of the set.

    Raises:
        EvaluationError: an embedding is not finite, or the set cannot be scored.

    Example:
        >>> rows = Embedder.open(network, contract=contract).embed(faces.images)
        >>> found = evaluate_set(EvalSet("mine", faces, None, all_pairs=True), rows, 2 * rows)
        >>> round(found[0].metric("cosine to teacher").student, 6)
        1.0
    """
    embedded = [Embedded(rows) for rows in (teacher, student) if rows is not None]
    return Evaluation(score_item(item, embedded, Options(flip=flip, threshold=threshold), progress))


def embedding_lengths(teacher: Embeddings, student: Embeddings) -> dict[str, float]:
    """Compare the student's embedding lengths with the teacher's.

    Args:
        teacher, student: embeddings (N,D), not normalized.

    Returns:
        ``ratio``, the mean of student length / teacher length, and ``rank_correlation`` (Spearman), 1
        where all lengths of a model are equal.

    Example:
        >>> rows = np.array([[3, 4], [6, 8], [0, 1]], np.float32)
        >>> embedding_lengths(rows, 2 * rows)
        {'ratio': 2.0, 'rank_correlation': 1.0}
    """
    from scipy.stats import spearmanr  # the import takes a second

    a, b = np.linalg.norm(teacher, axis=1), np.linalg.norm(student, axis=1)
    constant = np.ptp(a) == 0 or np.ptp(b) == 0
    correlation = 1.0 if constant else float(spearmanr(a, b).statistic)
    return {"ratio": length_ratio(teacher, student), "rank_correlation": correlation}


def length_ratio(teacher: Embeddings, student: Embeddings) -> float:
    """Mean of student length / teacher length, of embeddings (N,D) that are not normalized."""
    a, b = np.linalg.norm(teacher, axis=1), np.linalg.norm(student, axis=1)
    return float((b / np.maximum(a, 1e-12)).mean())


def load_items(
    wanted: Sequence[str | EvalItem], contract: FaceContract, resize: bool, console: Console
) -> list[EvalItem]:
    """Load all sets that ``--eval`` names; images and pairs left out are logged.

    Raises:
        DataError, CropError: a set cannot be used.
    """
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
                for why in [] if found.pairs is None else found.pairs.left_out():
                    console.warn(f"{found.name}: {why}")
        items += loaded
    return items


def embed_item(
    item: EvalItem, embedder: Embeds, who: str, options: Options, console: Console
) -> Embedded:
    """A model's embeddings of an item, with a progress bar."""
    with console.bar(f"{item.name}: {who}") as advance:
        return item.embed(embedder, options, advance)


def score_items(
    items: Sequence[EvalItem],
    embedded: Callable[[EvalItem], Sequence[Embedded]],
    options: Options,
    console: Console,
) -> Evaluation:
    """Embed and score every item, with progress bars; callbacks get the metrics.

    Raises:
        EvaluationError: as :func:`score_item`.
    """
    results = Evaluation()
    for item in items:
        rows = embedded(item)
        with console.bar(f"{item.name}: scoring") as advance:
            results += score_item(item, rows, options, advance)
    results += families(items, results)
    for result in results:
        console.metrics(result.protocol, result.values())
        for why in result.left_out:
            console.detail(f"{result.protocol}: {why}")
    return results


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
