"""Evaluation of any model, alone or against another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.errors import ContractError
from efquantface.evaluation.protocol import ProtocolResult
from efquantface.evaluation.sets import EvalSet, load_eval
from efquantface.evaluation.verify import evaluate_set
from efquantface.runtime.embedder import Embedder
from efquantface.runtime.memory import keep_freed_memory


def evaluate(
    model: str | Path | nn.Module | Embedder,
    eval: str | EvalSet | Sequence[str | EvalSet],
    *,
    against: str | Path | nn.Module | Embedder | None = None,
    contract: FaceContract | None = None,
    backend: str = "auto",
    preprocess: str | None = None,
    flip: bool = False,
    threshold: float | None = None,
    resize: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    quiet: bool = False,
) -> list[ProtocolResult]:
    """Verification results on one or more sets.

    Args:
        model: the model, or the teacher where ``against`` is given.
        eval: ``"lfw=DIR"``, ``"folder=DIR"``, ``"pairs=FILE.csv"``, sets in memory, or several.
        against: the student; its results stand beside the model's, with paired intervals.
        contract, preprocess: for models that do not say how pixels are normalized.
        flip: add the mirror image's embedding before normalization.
        threshold: a cosine already deployed; adds FAR and FRR there.

    Raises:
        EfqError: a kind of it, saying what was wrong.
    """
    keep_freed_memory()
    console = Console(quiet)
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
    items = [eval] if isinstance(eval, str | EvalSet) else list(eval)
    results: list[ProtocolResult] = []
    for item in items:
        if isinstance(item, str):
            with console.bar(f"loading {item.partition('=')[0]}") as advance:
                item = load_eval(item, first, resize=resize, progress=advance)
        for name, why in item.faces.skipped[:5]:
            console.warn(f"skipped {name}: {why}")
        embeddings = []
        for embedder in embedders:
            with console.bar(f"{item.name}: {embedder.name}") as advance:
                embeddings.append(embedder.embed(item.faces.images, flip=flip, progress=advance))
        with console.bar(f"{item.name}: scoring") as advance:
            results += evaluate_set(
                item, *embeddings, flip=flip, threshold=threshold, progress=advance
            )
    return results
