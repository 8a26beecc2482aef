"""Compares the exported file with the user's: decisions on evaluation sets, and speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from efquantface.data.faces import FaceSet, cap
from efquantface.data.sources import SYNTHETIC
from efquantface.embedding.benchmark import Speed, measure
from efquantface.embedding.embedder import Embedder
from efquantface.evaluation.items import Embedded, EvalItem
from efquantface.evaluation.result import Evaluation
from efquantface.evaluation.run import embed_item, embedding_lengths, score_items
from efquantface.evaluation.sets import EvalSet
from efquantface.evaluation.shared import warn_of_shared
from efquantface.export.without_vnni import WithoutVnni, crops_for, lost_without_vnni
from efquantface.graph.model import FaceModel
from efquantface.interfaces import Embeds
from efquantface.pipeline.run_dir import Run
from efquantface.pipeline.teacher import Teacher
from efquantface.report.results import BEST_FLOAT, STUDENT, TEACHER
from efquantface.runtime.processor import lacks_vnni
from efquantface.runtime.sessions import has_cuda


@dataclass(frozen=True)
class Comparison:
    """Teacher and student on the evaluation sets.

    Attributes:
        teacher: the name of the teacher's file or network.
        protocols: the metrics of both on every set.
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
    """Compare the exported file with the user's own, on every set.

    Warns of people that a set shares with the training faces.

    Args:
        run: whose exported file is evaluated.
        teacher: the user's network.
        sets: evaluation sets.
        training: the faces trained on, and the teacher's embeddings (N,D) of them.
    """
    recipe, console, lengths = run.recipe, run.console, dict[str, dict[str, float]]()
    # training on CUDA does not need an ONNX Runtime that has it
    device = recipe.device if has_cuda() else "cpu"
    own = teacher.embedder(own=True, device=device, threads=recipe.threads)
    # CUDA would run the student in float
    student = Embedder.open(run.directory.onnx, threads=recipe.threads)
    kept: Embeds = teacher.remembering(own) if recipe.cache else own
    options = recipe.evaluation.options()

    def embedded(item: EvalItem) -> list[Embedded]:
        known = kept if isinstance(item, EvalSet) else own  # IJB's crops are read one by one
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


def without_vnni(
    run: Run, student: FaceModel, held: FaceSet, teacher: npt.NDArray[np.float32]
) -> WithoutVnni:
    """What a student that is not portable loses on x86 without VNNI, on some held-out faces.

    Args:
        run: whose exported file is opened in ONNX Runtime.
        student: the network that was exported.
        held: all N faces that were held out.
        teacher: the teacher's embeddings (N,D) of them.
    """
    index = cap(held.identities, crops_for(student), run.recipe.seed)
    faces = held.subset(index)
    file = Embedder.open(run.directory.onnx, threads=run.recipe.threads)
    with run.console.bar("with and without VNNI") as advance:
        return lost_without_vnni(
            student,
            faces.images,
            faces.identities,
            teacher[index],
            file.embed(faces.images),
            lacking=lacks_vnni(),
            progress=advance,
        )


def time_files(run: Run, teacher: Teacher) -> Speed:
    """Time the user's file, its best float form and the student in turns, on one thread."""
    models = [
        (TEACHER, teacher.embedder(own=True, threads=1)),
        (BEST_FLOAT, teacher.embedder(threads=1)),
        (STUDENT, Embedder.open(run.directory.onnx, threads=1)),
    ]
    with run.console.bar("measuring speed") as advance:
        return measure(models, 1, seed=run.recipe.seed, progress=advance)
