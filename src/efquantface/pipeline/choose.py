"""Chooses a way of compressing for a target: all are tried without training, and one is trained.

An untrained student has seen the calibration crops only. So its loss can be measured on all other faces.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from efquantface.console import Console
from efquantface.data.faces import cap
from efquantface.distill.bank import TeacherBank
from efquantface.embedding.embedder import Embedder
from efquantface.errors import RecipeError, TargetError
from efquantface.export.onnx_writer import to_onnx
from efquantface.files import write_text
from efquantface.graph.model import FaceModel
from efquantface.pipeline import estimate
from efquantface.pipeline.clock import Clock, timings_of
from efquantface.pipeline.inputs import Inputs
from efquantface.pipeline.run_dir import Run
from efquantface.pipeline.start import calibration_batches, calibration_index, make_start
from efquantface.prune.prune import prune, scores_of
from efquantface.recipe import PRUNED_EPOCHS, Recipe
from efquantface.runtime.sessions import onnxruntime_session, run_onnxruntime
from efquantface.target.choice import Choice
from efquantface.target.front import WAYS, Candidate, Way, choose
from efquantface.target.goal import Target
from efquantface.target.predict import cause, distance, nearer, strictest_far, tar, trained

_FACES = 4_000  # at most; they give eight million pairs


def with_choice(run: Run, inputs: Inputs, bank: TeacherBank) -> tuple[Run, Choice | None]:
    """The run with settings that meet the recipe's target, and the choice.

    Without a target the run is not changed, and the choice is None. A resumed run keeps its choice,
    because times differ between measurements.

    Raises:
        TargetError: no way meets the target, or the faces have no identities.
        EvaluationError: the faces are too few to predict losses on.
    """
    recipe, console = run.recipe, run.console
    if recipe.target is None:
        return run, None
    with console.stage(estimate.CHOOSING):
        choice = _kept(run) if run.resume else None
        if choice is None:
            choice = _try_all(run, inputs, bank, Target.parse(recipe.target))
            write_text(run.directory.choice, json.dumps(choice.as_dict(), indent=2) + "\n")
        for line in choice.lines():
            console.log(line)
        chosen = _settled(recipe, choice.chosen.way)
        console.log(
            f"chosen for {Target.parse(recipe.target).describe()}: {choice.chosen.way.name}"
        )
    run.directory.pin(chosen)
    names = estimate.stages(chosen)
    console.stages.names = (*names[:2], estimate.CHOOSING, *names[2:])
    return dataclasses.replace(run, recipe=chosen), choice


def _kept(run: Run) -> Choice | None:
    try:
        found = Choice.read(run.directory.choice.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.target == run.recipe.target else None


def _settled(recipe: Recipe, way: Way) -> Recipe:
    """The recipe with a way's settings in place of the target."""
    training = recipe.training
    if way.prune is not None and "epochs" not in training.model_fields_set:
        training = training.model_copy(update={"epochs": PRUNED_EPOCHS})
    settings = dataclasses.asdict(way)
    return recipe.model_copy(update={**settings, "target": None, "training": training})


def _try_all(run: Run, inputs: Inputs, bank: TeacherBank, target: Target) -> Choice:
    recipe, model = run.recipe, inputs.teacher.model
    faces = _Faces.of(run, inputs, bank, target)
    batches = calibration_batches(
        model, inputs.faces, inputs.train, recipe.seed, recipe.calibration_images
    )
    clock = Clock(recipe.scheme, timings_of(run))
    tried = []
    with run.console.bar("trying ways of compressing") as advance:
        for done, (way, network) in enumerate(_networks(run, model, batches), 1):
            if network is not None:
                tried.append(_tried(run, way, network, batches, faces, clock))
            advance(done, len(WAYS))
    best = choose(tried, target)
    return Choice(str(recipe.target), faces.far, tried, best, len(faces.identities))


@dataclass(frozen=True)
class _Faces:
    """Crops (N,H,W,3), the teacher's embeddings (N,D), identities (N,), and its TAR at a FAR."""

    images: Any
    teacher: npt.NDArray[np.float32]
    identities: npt.NDArray[np.int64]
    far: float
    tar: float

    @classmethod
    def of(cls, run: Run, inputs: Inputs, bank: TeacherBank, target: Target) -> _Faces:
        """Those that no untrained student has seen.

        Raises:
            TargetError: the faces have no identities.
            EvaluationError: they have too few pairs for the target's FAR.
        """
        if not inputs.faces.has_identities:
            raise TargetError(
                f"target {run.recipe.target}: predicting losses needs identities; give faces with one "
                "subfolder an identity, or choose bits yourself"
            )
        recipe = run.recipe
        seen = calibration_index(inputs.train, recipe.seed, recipe.calibration_images)
        unseen = np.setdiff1d(np.concatenate([inputs.train, inputs.held]), seen)
        index = unseen[cap(inputs.faces.identities[unseen], _FACES, recipe.seed)]
        teacher, identities = np.asarray(bank.plain[index]), inputs.faces.identities[index]
        far = target.far or strictest_far(identities)
        whole = tar(teacher, identities, far)
        return cls(inputs.faces.images[index], teacher, identities, far, whole)


def _networks(
    run: Run, model: FaceModel, batches: list[Tensor]
) -> Iterable[tuple[Way, FaceModel | None]]:
    """Every way and its float network; None if the way's share cannot be pruned."""
    recipe = run.recipe
    made: dict[float, FaceModel | None] = {}
    scores = None
    for way in WAYS:
        share = way.prune
        if share is None:
            yield way, model
            continue
        if share not in made:
            try:
                if scores is None:
                    scores = scores_of(model, batches, recipe.importance, seed=recipe.seed)
                found = prune(
                    model, batches, share, importance=recipe.importance,
                    round_to=recipe.multiples, seed=recipe.seed, scores=scores,
                )  # fmt: skip
                made[share] = found.model
            except RecipeError as error:
                run.console.log(f"{share:.0%} pruned: left out ({error})")
                made[share] = None
        yield way, made[share]


def _tried(
    run: Run,
    way: Way,
    network: FaceModel,
    batches: list[Tensor],
    faces: _Faces,
    clock: Clock,
) -> Candidate:
    recipe = _settled(run.recipe, way)
    start = make_start(network, batches, recipe.scheme, way.budget, recipe.seed, Console(True))
    file = to_onnx(start.student).SerializeToString()
    session = onnxruntime_session(file, run.threads, "cpu")
    contract = start.student.contract
    embedder = Embedder(contract, way.name, "onnxruntime", run_onnxruntime(session))
    rows = embedder.embed(faces.images)
    before = distance(faces.teacher, rows)
    why = cause(recipe.scheme.bits.weight, way.prune is not None)
    after = trained(before, recipe.training.epochs, why)
    loss = faces.tar - tar(nearer(faces.teacher, rows, after), faces.identities, faces.far)
    return Candidate(way, len(file), clock(network), before, after, loss)
