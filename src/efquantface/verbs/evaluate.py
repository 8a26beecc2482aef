"""Evaluation of any model, alone or against another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.embedding.embedder import Embedder
from efquantface.errors import ContractError
from efquantface.evaluation.groups import read_groups
from efquantface.evaluation.items import EvalItem, Options
from efquantface.evaluation.result import ProtocolResult
from efquantface.evaluation.run import embed_item, families, load_items, score_item
from efquantface.evaluation.templates import TemplateFlags
from efquantface.runtime.memory import keep_freed_memory

if TYPE_CHECKING:
    from torch import nn


def evaluate(
    model: str | Path | nn.Module | Embedder,
    eval: str | EvalItem | Sequence[str | EvalItem],
    *,
    against: str | Path | nn.Module | Embedder | None = None,
    contract: FaceContract | None = None,
    backend: str = "auto",
    preprocess: str | None = None,
    flip: bool = False,
    threshold: float | None = None,
    arcface: bool = False,
    group_by: str | Path | None = None,
    templates: str = "N1D1F1",
    resize: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    quiet: bool = False,
) -> list[ProtocolResult]:
    """Verification and identification results on one or more sets.

    Args:
        model: the model, or the teacher where ``against`` is given.
        eval: ``"lfw=DIR"``, ``"folder=DIR"``, ``"pairs=FILE.csv"``, a ``.bin``, sets in memory, or
            several (see :func:`~efquantface.evaluation.benchmarks.load.load_eval`).
        against: the student; its results stand beside the model's, with paired intervals.
        contract, preprocess: for models that do not say how pixels are normalized.
        flip: add the mirror image's embedding before normalization.
        threshold: a cosine already deployed; adds FAR and FRR there.
        arcface: also what arcface_torch prints for listed pairs (turns ``flip`` on).
        group_by: a CSV file with the columns name, group; adds the spread between groups.
        templates: how IJB's crops are pooled, for example ``N1D1F1``.

    Raises:
        EfqError: a kind of it, saying what was wrong.
    """
    keep_freed_memory()
    console = Console(quiet)
    options = Options(
        flip,
        threshold,
        arcface,
        read_groups(Path(group_by)) if group_by is not None else {},
        TemplateFlags.parse(templates),
    )
    embedders = [
        m
        if isinstance(m, Embedder)
        else Embedder.open(
            m,
            backend=backend,
            preprocess=preprocess,
            contract=contract,
            device=device,
            threads=threads,
        )
        for m in (model, against)
        if m is not None
    ]
    first = embedders[0].contract
    if any((e.contract.height, e.contract.width) != (first.height, first.width) for e in embedders):
        raise ContractError("the two models take crops of different size; evaluate them apart")
    for embedder in embedders:
        console.say(f"{embedder.name} ({embedder.backend}): {embedder.contract.describe()}")
    items = load_items([eval] if isinstance(eval, str | EvalItem) else eval, first, resize, console)
    results: list[ProtocolResult] = []
    for item in items:
        embedded = [embed_item(item, e, e.name, options, console) for e in embedders]
        with console.bar(f"{item.name}: scoring") as advance:
            results += score_item(item, embedded, options, advance)
    return results + families(items, results)
