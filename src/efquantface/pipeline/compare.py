"""The exported file beside the user's own: their decisions on evaluation sets, and their speed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from efquantface.assets import file_sha256
from efquantface.console import Console
from efquantface.data.faces import FaceSet
from efquantface.data.sources import SYNTHETIC
from efquantface.distill.settings import History
from efquantface.embedding.benchmark import Timing, benchmark
from efquantface.embedding.cache import EmbeddingCache
from efquantface.embedding.embedder import Embedder
from efquantface.evaluation.items import EvalItem
from efquantface.evaluation.result import ProtocolResult
from efquantface.evaluation.run import embed_item, embedding_lengths, families, score_item
from efquantface.evaluation.sets import EvalSet
from efquantface.evaluation.shared import warn_of_shared
from efquantface.export.parity import Parity
from efquantface.graph.model import FaceModel
from efquantface.interfaces import Embeds
from efquantface.pipeline.preflight import model_digest
from efquantface.pipeline.run_dir import RunDir
from efquantface.recipe import Recipe
from efquantface.report.results import Results, Sizes
from efquantface.runtime.sessions import has_cuda


def compare(
    teacher: str | Path | nn.Module | FaceModel,
    model: FaceModel,
    student: FaceModel,
    run: RunDir,
    sets: Sequence[EvalItem],
    history: History,
    recipe: Recipe,
    parity: Parity,
    training: tuple[FaceSet, npt.NDArray[np.float32]],
    console: Console,
) -> Results:
    """The exported file against the user's own, on every set.

    ``training`` is what was trained on and the teacher's embeddings (N,D) of it; people that a set
    shares with it are warned of.
    """
    # training on CUDA does not need an ONNX Runtime that has it
    device = recipe.device if has_cuda() else "cpu"
    own = _teacher_embedder(teacher, model, device, recipe.threads)
    exported = Embedder.open(run.onnx, threads=recipe.threads)  # on CUDA it would run in float
    protocols: list[ProtocolResult] = []
    lengths: dict[str, dict[str, float]] = {}
    options = recipe.evaluation.options()
    kept: Embeds = EmbeddingCache(own, _key(own, model)) if recipe.cache else own
    for item in sets:
        known = kept if isinstance(item, EvalSet) else own  # IJB's crops stream by
        embedded = [
            embed_item(item, embedder, who, options, console)
            for who, embedder in (("teacher", known), ("student", exported))
        ]
        if isinstance(item, EvalSet) and not recipe.faces.startswith(SYNTHETIC):
            warn_of_shared(*training, item, embedded[0].rows, console)
        if isinstance(item, EvalSet):  # pooled templates have length 1
            lengths[item.name] = embedding_lengths(*(e.rows for e in embedded))
        with console.bar(f"{item.name}: scoring") as advance:
            protocols += score_item(item, embedded, options, advance)
    protocols += families(sets, protocols)
    sizes = Sizes.measure(model, student, run.onnx)
    return Results(
        recipe=recipe.model_dump(mode="json"),
        contract=model.contract,
        teacher=own.name,
        sizes=sizes,
        protocols=protocols,
        lengths=lengths,
        history=history,
        parity=parity,
    )


def _key(own: Embedder, model: FaceModel) -> str:
    """What the teacher's embeddings depend on: weights, contract, file, runtime."""
    file = file_sha256(own.path) if own.backend == "onnxruntime" and own.path else ""
    return f"{model_digest(model)} {file} {own.backend} {version('onnxruntime')}"


def _teacher_embedder(
    teacher: str | Path | nn.Module | FaceModel, model: FaceModel, device: str, threads: int | None
) -> Embedder:
    """The user's own ONNX file where there is one, else the float network in ONNX Runtime."""
    if isinstance(teacher, str | Path) and Path(teacher).suffix == ".onnx":
        return Embedder.open(teacher, contract=model.contract, device=device, threads=threads)
    return Embedder.open(model, backend="onnxruntime", device=device, threads=threads)


def time_files(
    teacher: str | Path | nn.Module | FaceModel,
    model: FaceModel,
    run: RunDir,
    recipe: Recipe,
    console: Console,
) -> list[Timing]:
    """One thread: the user's file, its best float form, the student, in turns."""
    models = [
        ("teacher", _teacher_embedder(teacher, model, "cpu", 1)),
        ("best float form", Embedder.open(model, backend="onnxruntime", threads=1)),
        ("student", Embedder.open(run.onnx, threads=1)),
    ]
    with console.bar("measuring speed") as advance:
        return benchmark(models, seed=recipe.seed, progress=advance)
