"""Reads and checks the inputs of a run: teacher, faces, evaluation sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from efquantface.contract import FaceContract
from efquantface.data.align import check_alignment
from efquantface.data.faces import FaceSet, crop_size, open_source, split
from efquantface.data.sources import SYNTHETIC, load_source
from efquantface.data.views import content_hash
from efquantface.evaluation.items import EvalItem
from efquantface.evaluation.run import load_items
from efquantface.evaluation.sets import EvalSet
from efquantface.graph.model import FaceModel
from efquantface.pipeline.compressible import check_compressible
from efquantface.pipeline.preflight import (
    better_reading,
    check_embedding,
    check_preprocessing,
    say_notes,
)
from efquantface.pipeline.run_dir import Run
from efquantface.pipeline.teacher import Teacher
from efquantface.pipeline.teacher_check import TeacherCheck, check_teacher, compare_with_source

_SKIPPED_SHOWN = 5
_COMPARED = 256  # faces by which processes check that they have the same
HELD_OUT = "held-out"


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run.

    Attributes:
        teacher: the network to compress.
        faces: all N faces.
        train, held: indices of the faces to train on, and of those held out.
        sets: evaluation sets.
        alignment: the result of comparing landmarks with the template; empty if it was not asked for.
        teacher_check: the teacher's graph compared with the user's file; None if the file cannot run.
    """

    teacher: Teacher
    faces: FaceSet
    train: npt.NDArray[np.int64]
    held: npt.NDArray[np.int64]
    sets: list[EvalItem]
    alignment: str
    teacher_check: TeacherCheck | None = None

    @cached_property
    def digests(self) -> dict[str, Any]:
        """Digests by which a resumed run checks that teacher and faces are the same."""
        images = content_hash(self.faces.images)
        images.update(np.ascontiguousarray(self.faces.identities).data)
        return {
            "teacher": self.teacher.digest[:16],
            "images": len(self.faces),
            "faces": images.hexdigest()[:16],
        }


def check_alike(run: Run, inputs: Inputs) -> None:
    """Check that all processes of a run have the same teacher and faces.

    Raises:
        RunError: this process has others than the first.
    """
    if run.ranks.alone:
        return
    faces = inputs.faces
    some = np.linspace(0, len(faces) - 1, min(len(faces), _COMPARED)).astype(np.int64)
    digest = content_hash(faces.images[some])
    digest.update(np.ascontiguousarray(faces.identities).data)
    mine = f"teacher {inputs.teacher.digest[:16]}, {len(faces):,} faces {digest.hexdigest()[:16]}"
    run.ranks.check_same(mine, "teacher or faces")


def read_inputs(
    run: Run,
    teacher: str | Path | nn.Module | FaceModel,
    faces: str | Path | FaceSet,
    contract: FaceContract | None,
    eval_sets: Sequence[EvalItem],
) -> Inputs:
    """Read and check all inputs, and print what was found. Nothing is written.

    Raises:
        EfqError: one of its subclasses: an input cannot be used.
    """
    recipe, console = run.recipe, run.console
    opened, face_set = _fitting(run, teacher, faces, contract)
    found = run.ranks.once(
        lambda: json.dumps(better_reading(opened.model, face_set, console)).encode()
    )
    reading = json.loads(found)
    if reading is not None:
        size = opened.contract.height, opened.contract.width
        opened = Teacher.open(teacher, preprocess=reading, size=size, licence=recipe.licence)
        known = replace(opened.contract, source=f"tried on faces, {reading}")
        opened.model.contract = known
    if not run.ranks.first:  # the first process checks and evaluates
        train, held = split(face_set, recipe.hold_out, recipe.seed)
        return Inputs(opened, face_set, train, held, [], "")
    checked = _checked(run, teacher, opened.model, face_set)
    if recipe.quantizes:
        check_compressible(opened.model, recipe.scheme)
    check_preprocessing(opened.model, face_set, console, recipe.anyway)
    alignment = _alignment(run, faces, face_set, opened.contract)
    named = load_items(recipe.evaluation.eval, opened.contract, recipe.resize, console)
    sets = [*eval_sets, *named]
    train, held = split(face_set, recipe.hold_out, recipe.seed)
    if not sets:
        console.log("no --eval given: evaluated on all pairs of the held-out faces")
        sets = [EvalSet(HELD_OUT, face_set.subset(held), None, True)]
    return Inputs(opened, face_set, train, held, sets, alignment, checked)


def _fitting(
    run: Run,
    given: str | Path | nn.Module | FaceModel,
    faces: str | Path | FaceSet,
    contract: FaceContract | None,
) -> tuple[Teacher, FaceSet]:
    """Teacher and faces. A teacher that takes crops of any size is opened for the size of the faces."""
    recipe = run.recipe

    def opened(size: tuple[int, int] | None) -> Teacher:
        return Teacher.open(
            given,
            contract=contract,
            preprocess=recipe.preprocess,
            size=size,
            licence=recipe.licence,
        )

    teacher = opened(recipe.crop_size)
    if teacher.model.open_size:
        size: tuple[int, int] | None = None
        if isinstance(faces, FaceSet):
            size = int(faces.images.shape[1]), int(faces.images.shape[2])
        elif not recipe.resize and not str(faces).startswith(SYNTHETIC):
            size = crop_size(open_source(Path(faces), recipe.follow_links))
        teacher = teacher if size is None else opened(size)
    if run.ranks.first:
        say_notes(teacher.model, run.console)
        check_embedding(teacher.model, run.console, recipe.anyway)
    return teacher, _faces(run, faces, teacher.contract)


def _faces(run: Run, faces: str | Path | FaceSet, contract: FaceContract) -> FaceSet:
    """Load the faces, and print what was found and what was skipped."""
    recipe, console = run.recipe, run.console
    found = load_source(
        faces,
        contract,
        resize=recipe.resize,
        seed=recipe.seed,
        limit=recipe.max_images,
        exclude=None if recipe.exclude is None else Path(recipe.exclude),
        follow_links=recipe.follow_links,
        most_bytes=recipe.faces_gb * 2**30,
        once=run.ranks.once,
        console=console,
    )
    console.log(f"faces: {found.describe()}")
    if found.people == 1:
        console.log("all faces are in one folder: taken as unlabelled")
        found = found.unlabelled()
    for name, why in found.skipped[:_SKIPPED_SHOWN]:
        console.warn(f"skipped {name}: {why}")
    if len(found.skipped) > _SKIPPED_SHOWN:
        more = len(found.skipped) - _SKIPPED_SHOWN
        console.warn(f"skipped {more} more files, listed in metrics.json")
    return found


def _checked(
    run: Run, given: str | Path | nn.Module | FaceModel, model: FaceModel, faces: FaceSet
) -> TeacherCheck | None:
    """Check that the graph computes what the user's file computes.

    Raises:
        ImportMismatchError, ModelFileError: it does not, and the recipe does not say ``anyway``.
    """
    if run.recipe.anyway:
        found = compare_with_source(given, model, faces.images)
    else:
        found = check_teacher(given, model, faces.images)
    if found is not None:
        run.console.log(found.describe())
        if found.problem:
            run.console.warn(f"{found.problem}; going on anyway")
    return found


def _alignment(
    run: Run, given: str | Path | FaceSet, faces: FaceSet, contract: FaceContract
) -> str:
    """The result of the check of the crops' landmarks; empty if it is not made."""
    made = isinstance(given, FaceSet) or str(given).startswith(SYNTHETIC)
    if made or not run.recipe.check_alignment:
        return ""
    said = check_alignment(faces, contract, run.recipe.seed)
    run.console.log(said)
    return said
