"""Evaluation of any model, alone or against another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.errors import ContractError
from efquantface.evaluation.groups import read_groups, spread_of_sets
from efquantface.evaluation.items import Embedded, Embeds, EvalItem, Options
from efquantface.evaluation.loading import load_eval
from efquantface.evaluation.protocol import Curves, ProtocolResult
from efquantface.evaluation.sets import EvalSet
from efquantface.evaluation.templates import TemplateFlags
from efquantface.evaluation.verify import score_item
from efquantface.runtime.embedder import Embedder
from efquantface.runtime.memory import keep_freed_memory


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
            several (see :func:`~efquantface.evaluation.loading.load_eval`).
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
