"""Evaluation of any model, alone or against another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from efquantface.callbacks import Callback
from efquantface.codes import rounded
from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.embedding.embedder import Embedder
from efquantface.embedding.parts import check_embedding
from efquantface.errors import ContractError, CropError, EfqError
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.groups import read_groups
from efquantface.evaluation.items import Embedded, EvalItem, Options
from efquantface.evaluation.result import Evaluation
from efquantface.evaluation.run import embed_item, load_items, score_items
from efquantface.evaluation.sets import EvalSet
from efquantface.evaluation.templates import TemplateFlags
from efquantface.export.portability import overflowing, wrong_without_vnni
from efquantface.importers.onnx.proto import load_proto
from efquantface.runtime.memory import keep_freed_memory
from efquantface.runtime.processor import lacks_vnni

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
    size: tuple[int, int] | None = None,
    flip: bool = False,
    threshold: float | None = None,
    arcface: bool = False,
    group_by: str | Path | None = None,
    templates: str = "N1D1F1",
    resize: bool = False,
    embedding: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
    quiet: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Evaluation:
    """Verification and identification results on one or more sets.

    Args:
        model: the model, or the teacher where ``against`` is given.
        eval: ``"lfw=DIR"``, ``"folder=DIR"``, ``"pairs=FILE.csv"``, a ``.bin``, sets in memory, or
            several (see :func:`~efquantface.evaluation.benchmarks.load.load_eval`).
        against: the student; its results stand beside the model's, with paired intervals.
        contract, preprocess: for models that do not say how pixels are normalized.
        size: height and width of crops, for files that leave them open; None takes them from the sets.
        flip: add the mirror image's embedding before normalization.
        threshold: the deployed threshold, a cosine; adds FAR and FRR there.
        arcface: add what arcface_torch prints for listed pairs (turns ``flip`` on).
        group_by: a CSV file with the columns name, group; adds the spread between groups.
        templates: how IJB's crops are pooled, for example ``N1D1F1``.
        resize: scale crops of another size.
        embedding: ``int8`` makes codes of the last model's embeddings; a model alone is compared with
            itself.
        backend, device, threads: as for :meth:`Embedder.open`.
        quiet: print nothing.
        callbacks: get progress and metrics.

    Returns:
        One result per protocol and set; the numbers of ``model`` are the teacher's.

    Raises:
        ContractError: the two models take crops of different size.
        EfqError: another subclass of it; its text says what is wrong.

    Example:
        >>> people = EvalSet("mine", faces, None, all_pairs=True)
        >>> found = evaluate(Embedder.open(network, contract=contract), people)
        >>> found
        Evaluation(mine all pairs: TAR@FAR=0.01 ...)
        >>> found[0].counts["genuine"]
        72
        >>> sorted(found.records()[0])[:3]
        ['genuine', 'impostor', 'loss']
    """
    keep_freed_memory()
    check_embedding(embedding)
    console = Console(quiet, callbacks)
    options = Options(
        flip,
        threshold,
        arcface,
        read_groups(Path(group_by)) if group_by is not None else {},
        TemplateFlags.parse(templates),
    )

    def opened(given: str | Path | nn.Module, wanted: tuple[int, int] | None) -> Embedder:
        return Embedder.open(
            given,
            backend=backend,
            preprocess=preprocess,
            size=wanted,
            contract=contract,
            device=device,
            threads=threads,
        )

    given = [m for m in (model, against) if m is not None]
    embedders = [m if isinstance(m, Embedder) else opened(m, size) for m in given]
    wanted = [eval] if isinstance(eval, str | EvalItem) else list(eval)
    found = _size_of_crops(wanted, embedders)
    if found is not None:
        embedders = [
            opened(m, found) if e.open_size and not isinstance(m, Embedder) else e
            for m, e in zip(given, embedders, strict=True)
        ]
    first = embedders[0].contract
    if any((e.contract.height, e.contract.width) != (first.height, first.width) for e in embedders):
        raise ContractError("the two models take crops of different size; evaluate them apart")
    for embedder in embedders:
        console.log(f"{embedder.name} ({embedder.backend}): {embedder.contract.describe()}")
        for note in embedder.notes:
            console.log(f"  {note}")
        _warn_of_overflow(embedder, console)
    items = load_items(wanted, first, resize, console)

    def embedded(item: EvalItem) -> list[Embedded]:
        rows = [embed_item(item, e, e.name, options, console) for e in embedders]
        if embedding == "int8":
            rows = [rows[0], replace(rows[-1], rows=rounded(rows[-1].rows))]
        return rows

    return score_items(items, embedded, options, console)


def _size_of_crops(
    wanted: Sequence[str | EvalItem], embedders: Sequence[Embedder]
) -> tuple[int, int] | None:
    """Height and width for models that leave them open; None where no model does, or nothing tells.

    The other model's size decides, then the crops of the sets.
    """
    if not any(e.open_size for e in embedders):
        return None
    told = [(e.contract.height, e.contract.width) for e in embedders if not e.open_size]
    for item in wanted:
        if told:
            break
        if isinstance(item, EvalSet):
            told.append((int(item.faces.images.shape[1]), int(item.faces.images.shape[2])))
        elif isinstance(item, str):
            try:
                load_eval(item, embedders[0].contract)
            except CropError as error:
                told += [error.size] if error.size is not None else []
            except EfqError:
                continue  # the same error comes when the set is loaded
    return told[0] if told else None


def _warn_of_overflow(embedder: Embedder, console: Console) -> None:
    """Warn where a file computes something else on processors without VNNI."""
    if embedder.path is None or embedder.path.suffix != ".onnx" or embedder.backend == "torch":
        return
    layers = overflowing(load_proto(embedder.path))
    if layers:
        here = "this processor is one of them: clients on it get the numbers printed here"
        there = "this processor is not one of them: the numbers printed here do not hold there"
        console.warn(
            f"{embedder.name}: {wrong_without_vnni(layers)} ({here if lacks_vnni() else there})"
        )
