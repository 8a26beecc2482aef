"""The exported file beside the user's own: their decisions on evaluation sets, and their speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from efquantface.data.faces import FaceSet
from efquantface.data.sources import SYNTHETIC
from efquantface.embedding.benchmark import Timing, benchmark
from efquantface.embedding.embedder import Embedder
from efquantface.evaluation.items import Embedded, EvalItem
from efquantface.evaluation.result import Evaluation
from efquantface.evaluation.run import embed_item, embedding_lengths, score_items
from efquantface.evaluation.sets import EvalSet
from efquantface.evaluation.shared import warn_of_shared
from efquantface.interfaces import Embeds
from efquantface.pipeline.run_dir import Run
from efquantface.pipeline.teacher import Teacher
from efquantface.runtime.sessions import has_cuda


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        teacher: the name of what was compared with.
        lengths: how the student's embedding lengths follow the teacher's, by set.
    """

    teacher: str
    protocols: Evaluation
    lengths: dict[str, dict[str, float]]


def compare(
    run: Run,
    teacher: Teacher,
    sets: Sequence[EvalItem],
    training: tuple[FaceSet, npt.NDArray[np.float32]],
) -> Comparison:
    """The exported file against the user's own, on every set.

    ``training`` is what was trained on and the teacher's embeddings (N,D) of it; people that a set
    shares with it are warned of.
    """
    recipe, console, lengths = run.recipe, run.console, dict[str, dict[str, float]]()
    # training on CUDA does not need an ONNX Runtime that has it
    device = recipe.device if has_cuda() else "cpu"
    own = teacher.embedder(own=True, device=device, threads=recipe.threads)
    # on CUDA it would run in float
    student = Embedder.open(run.directory.onnx, threads=recipe.threads)
    kept: Embeds = teacher.remembering(own) if recipe.cache else own
    options = recipe.evaluation.options()

    def embedded(item: EvalItem) -> list[Embedded]:
        known = kept if isinstance(item, EvalSet) else own  # IJB's crops stream by
        both = [
            embed_item(item, embedder, who, options, console)
            for who, embedder in (("teacher", known), ("student", student))
        ]
        if isinstance(item, EvalSet):  # pooled templates have length 1
            lengths[item.name] = embedding_lengths(*(e.rows for e in both))
            if not recipe.faces.startswith(SYNTHETIC):
                warn_of_shared(*training, item, both[0].rows, console)
        return both

    return Comparison(own.name, score_items(sets, embedded, options, console), lengths)


def time_files(run: Run, teacher: Teacher) -> list[Timing]:
    """One thread: the user's file, its best float form, the student, in turns."""
    models = [
        ("teacher", teacher.embedder(own=True, threads=1)),
        ("best float form", teacher.embedder(threads=1)),
        ("student", Embedder.open(run.directory.onnx, threads=1)),
    ]
    with run.console.bar("measuring speed") as advance:
        return benchmark(models, seed=run.recipe.seed, progress=advance)
