"""The method, from start to end: in the process that owns the run, and in the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from efquantface.data.faces import cap
from efquantface.data.views import Taken, take
from efquantface.distill.bank import TeacherBank
from efquantface.evaluation.sets import EvalSet
from efquantface.export.parity import Parity
from efquantface.files import write_text
from efquantface.graph.checkpoint import save_checkpoint
from efquantface.graph.model import FaceModel
from efquantface.pipeline import estimate
from efquantface.pipeline.choose import with_choice
from efquantface.pipeline.clock import Clock, timings_of
from efquantface.pipeline.compare import compare, time_files, without_vnni
from efquantface.pipeline.deliver import export_student, restore_length
from efquantface.pipeline.depth import prune_by_time
from efquantface.pipeline.handed_on import shared_start
from efquantface.pipeline.inputs import Inputs
from efquantface.pipeline.latency import prune_to
from efquantface.pipeline.run_dir import Run, RunDir
from efquantface.pipeline.start import Start, calibration_batches, make_start
from efquantface.pipeline.train import teacher_bank, train
from efquantface.prune.goal import Latency
from efquantface.prune.prune import Pruned, prune
from efquantface.quantize.float_student import plain, trainable
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import layer_errors
from efquantface.quantize.scheme import Scheme
from efquantface.recipe import Recipe
from efquantface.report import sentences
from efquantface.report.card import model_card
from efquantface.report.page import write_report
from efquantface.report.provenance import Provenance
from efquantface.report.results import Results, Sizes
from efquantface.runtime.environment import environment

_LAYER_FACES = 64
_LOOKED_AT = 200_000  # training images searched for people of evaluation sets, at most


@dataclass(frozen=True, repr=False)
class CompressResult:
    """What :func:`compress` returns.

    Attributes:
        run: the run's files, for example ``run.onnx`` and ``run.report``.
        student: the network in PyTorch.
        results: all metrics.
        parity: the check of the exported file.
    """

    run: RunDir
    student: FaceModel
    results: Results
    parity: Parity

    def __repr__(self) -> str:
        """One line: the run's folder and its results."""
        return f"CompressResult({self.run.path}, {self.results!r})"


def work(run: Run, inputs: Inputs, caveat: str) -> CompressResult:
    """The method, from start to end. ``caveat`` is a sentence at the top of table and report."""
    with run.console.stage(estimate.EMBEDDING):
        bank = teacher_bank(run, inputs)
    run, choice = with_choice(run, inputs, bank)
    recipe, console, files = run.recipe, run.console, run.directory
    teacher, faces = inputs.teacher, inputs.faces
    pruned: Pruned | None = None
    latency: Latency | None = None

    def begin() -> Start:
        nonlocal pruned, latency
        batches = calibration_batches(
            teacher.model, faces, inputs.train, recipe.seed, recipe.calibration_images
        )
        pruned, latency = _prune(run, teacher.model, batches)
        return _start(run, teacher.model if pruned is None else pruned.model, batches)

    start = _shared_start(run, begin)
    history = train(run, inputs, start, bank)
    run.ranks.leave()  # the first process does the rest
    student = start.student if recipe.quantizes else plain(start.student)
    with console.stage(estimate.EXPORT):
        parity = _deliver(run, inputs, student, bank)
        errors = _layer_errors(inputs, start, student) if recipe.quantizes else []
    with console.stage(estimate.EVALUATION):
        seen = _looked_at(inputs)
        training = faces.subset(seen), bank.plain[seen]
        found = compare(run, teacher, inputs.sets, training)
        saturated = None
        if not parity.portable:
            held = faces.subset(inputs.held)
            saturated = without_vnni(run, student, held, _rows_of(bank, inputs.held))
    speed = None
    if recipe.benchmark:
        with console.stage(estimate.SPEED):
            speed = time_files(run, teacher)
    results = Results(
        recipe=recipe.model_dump(mode="json"),
        contract=teacher.contract,
        teacher=found.teacher,
        sizes=Sizes.measure(teacher.model, student, files.onnx),
        protocols=found.protocols,
        lengths=found.lengths,
        history=history,
        parity=parity,
        teacher_check=None if inputs.teacher_check is None else inputs.teacher_check.as_dict(),
        layer_errors=errors,
        images_used=_images_used(recipe, len(inputs.train)),
        skipped=faces.skipped,
        without_vnni=saturated,
        speed=speed,
        choices=start.choices,
        choice=choice,
        pruned=pruned,
        latency=latency,
        reconstructed=recipe.reconstructs,
        title=caveat,
        caveat=caveat,
        provenance=Provenance.of(recipe, inputs.digests, environment()["packages"], files.onnx),
    )
    for line in sentences.target(results):
        console.log(line)
    with console.stage(estimate.REPORT):
        _report(run, inputs, results)
    return CompressResult(files, student, results, parity)


def _rows_of(bank: TeacherBank, index: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Rows (N,D) of the bank, read when they are used."""
    rows: Any = Taken(bank.plain, index)
    return cast("npt.NDArray[np.float32]", rows)


def _looked_at(inputs: Inputs) -> npt.NDArray[np.int64]:
    """The training images that are searched for people of evaluation sets."""
    if len(inputs.train) <= _LOOKED_AT:
        return inputs.train
    return inputs.train[cap(inputs.faces.identities[inputs.train], _LOOKED_AT, 0)]


def _prune(
    run: Run, model: FaceModel, batches: list[Tensor]
) -> tuple[Pruned | None, Latency | None]:
    """The pruned float network, and its times if time decided; None without pruning."""
    recipe, console, goal, latency = run.recipe, run.console, run.recipe.prune_goal, None
    if goal is None:
        return None, None
    with console.stage(estimate.PRUNING), console.bar("pruning") as advance:
        options: dict[str, Any] = {
            "importance": recipe.importance,
            "seed": recipe.seed,
            "progress": advance,
        }
        if goal.share is not None and not recipe.prunes_by_time:
            pruned = prune(model, batches, goal.share, round_to=recipe.multiples, **options)
        else:
            options["round_to"] = recipe.multiples[0]
            clock = Clock(recipe.scheme if recipe.quantizes else None, timings_of(run))
            options["say"] = console.log
            if recipe.prunes_by_time:
                pruned, latency = prune_by_time(model, batches, goal, clock, **options)
            else:
                assert goal.ms is not None
                pruned, latency = prune_to(model, batches, goal.ms, clock, **options)
    for line in pruned.describe():
        console.log(line)
    return pruned, latency


def _start(run: Run, model: FaceModel, batches: list[Tensor]) -> Start:
    """The untrained student."""
    recipe = run.recipe
    if not recipe.quantizes:
        return Start(trainable(model), model, Scheme())
    with run.console.stage(estimate.START):
        start = make_start(
            model,
            batches,
            recipe.scheme,
            recipe.budget,
            recipe.seed,
            run.console,
            rebuild=recipe.reconstructs,
        )
    if start.choices:
        run.directory.write_pinned(recipe, start.scheme)
    return start


def _deliver(run: Run, inputs: Inputs, student: FaceModel, bank: TeacherBank) -> Parity:
    """Write checkpoint and checked file."""
    seen = take(inputs.faces.images, inputs.held), _rows_of(bank, inputs.held)
    restore_length(student, *seen)
    save_checkpoint(student, run.directory.checkpoint)
    stored = {"efquantface.bits": run.recipe.bits}
    return export_student(student, run.directory.onnx, *seen, stored, run.console)


def _layer_errors(inputs: Inputs, start: Start, student: FaceModel) -> list[tuple[str, float]]:
    """Error of each quantized tensor against the float network's, on held-out faces."""
    some = inputs.faces.images[inputs.held[:_LAYER_FACES]]
    sample = torch.from_numpy(inputs.teacher.contract.pixels(some))
    return layer_errors(student.graph, quantize(start.teacher, start.scheme).graph, sample)


def _images_used(recipe: Recipe, train: int) -> int:
    return train if recipe.training.epochs else min(recipe.calibration_images, train)


def _report(run: Run, inputs: Inputs, results: Results) -> None:
    """Write metrics, model card and report. Remove the training state and the bank."""
    files = run.directory
    files.write_metrics(results.as_dict())
    shown = [s for s in inputs.sets if isinstance(s, EvalSet)] if run.recipe.report_faces else []
    write_text(files.card, model_card(results))
    write_report(files.report, results, shown)
    files.state.unlink(missing_ok=True)
    files.bank.unlink(missing_ok=True)
    run.console.log(f"student: {files.onnx}   report: {files.report}")


def take_part(run: Run, inputs: Inputs) -> NoReturn:
    """What all processes but the first do: embed their share of the faces, and train."""
    bank = teacher_bank(run, inputs)
    start = _shared_start(run, lambda: Start(inputs.teacher.model, inputs.teacher.model, Scheme()))
    train(run, inputs, start, bank)
    run.ranks.leave()
    raise SystemExit(0)


def _shared_start(run: Run, make: Callable[[], Start]) -> Start:
    recipe = run.recipe
    training = recipe.training
    return shared_start(
        run.ranks,
        make,
        quantizes=recipe.quantizes,
        layers=training.epochs > 0 and training.layer_weight > 0,
    )
