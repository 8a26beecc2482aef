"""The main job: teacher and faces in, a verified integer student and a report out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from efquantface.callbacks import Callback
from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.distill.bank import TeacherBank
from efquantface.embedding.torch_run import check_device
from efquantface.errors import FinishedError, OutOfMemoryError, WriteError
from efquantface.evaluation.items import EvalItem
from efquantface.evaluation.sets import EvalSet
from efquantface.export.parity import Parity
from efquantface.files import write_text
from efquantface.graph.checkpoint import save_checkpoint
from efquantface.graph.model import FaceModel
from efquantface.pipeline import estimate
from efquantface.pipeline.compare import compare, time_files, without_vnni
from efquantface.pipeline.deliver import export_student, restore_length
from efquantface.pipeline.dry_run import RunPlan, plan_run
from efquantface.pipeline.inputs import Inputs, read_inputs
from efquantface.pipeline.latency import prune_to
from efquantface.pipeline.lock import alone_in
from efquantface.pipeline.paths import check_inputs
from efquantface.pipeline.room import check_room
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
from efquantface.report.card import model_card
from efquantface.report.page import write_report
from efquantface.report.provenance import Provenance
from efquantface.report.results import Results, Sizes
from efquantface.runtime.environment import environment
from efquantface.runtime.memory import is_out_of_memory, keep_freed_memory

_LAYER_FACES = 64


@dataclass(frozen=True, repr=False)
class CompressResult:
    """What :func:`compress` gives back.

    Attributes:
        run: the run's files, for example ``run.onnx`` and ``run.report``.
        student: the network in PyTorch.
        results: all numbers.
        parity: of the exported file.
    """

    run: RunDir
    student: FaceModel
    results: Results
    parity: Parity

    def __repr__(self) -> str:
        """One line: where, and what was found."""
        return f"CompressResult({self.run.path}, {self.results!r})"


@overload
def compress(
    teacher: str | Path | nn.Module | FaceModel,
    faces: str | Path | FaceSet,
    output: str | Path = ...,
    *,
    contract: FaceContract | None = ...,
    eval_sets: Sequence[EvalItem] = ...,
    recipe: Recipe | None = ...,
    force: bool = ...,
    resume: bool = ...,
    dry_run: Literal[False] = ...,
    quiet: bool = ...,
    caveat: str = ...,
    callbacks: Sequence[Callback] = ...,
    **options: Any,
) -> CompressResult: ...


@overload
def compress(
    teacher: str | Path | nn.Module | FaceModel,
    faces: str | Path | FaceSet,
    output: str | Path = ...,
    *,
    dry_run: Literal[True],
    **options: Any,
) -> RunPlan: ...


@overload
def compress(
    teacher: str | Path | nn.Module | FaceModel,
    faces: str | Path | FaceSet,
    output: str | Path = ...,
    *,
    dry_run: bool,
    **options: Any,
) -> CompressResult | RunPlan: ...


def compress(
    teacher: str | Path | nn.Module | FaceModel,
    faces: str | Path | FaceSet,
    output: str | Path = "efq-run",
    *,
    contract: FaceContract | None = None,
    eval_sets: Sequence[EvalItem] = (),
    recipe: Recipe | None = None,
    force: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
    caveat: str = "",
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> CompressResult | RunPlan:
    """Compress a face-recognition network and prove what it lost.

    Args:
        teacher: an ONNX file, a checkpoint, the name of a default, or an ``nn.Module`` together
            with ``contract``.
        faces: a folder of aligned crops (one subfolder an identity, or unlabelled),
            ``synthetic:COUNT``, or a :class:`FaceSet`.
        output: the run's directory.
        contract: what an ``nn.Module`` expects of its crops; overrides what a file says.
        eval_sets: evaluation sets in memory, beside the recipe's ``eval``.
        recipe: all options at once; otherwise ``options`` are its fields (``bits="w8a8"``,
            ``eval=("lfw=DIR",)``, ``epochs=2``, ...).
        force, resume: replace an existing run, or go on with it.
        dry_run: say what was found and what would be done, and write nothing.
        quiet: print nothing.
        caveat: a sentence for the head of table and report.
        callbacks: told of progress, losses and metrics.

    Returns:
        The student, its files and all numbers; of a dry run the plan.

    Raises:
        EfqError: a kind of it, saying what was wrong and what to do.
        KeyboardInterrupt: the run's directory can be gone on with by ``resume``.

    Example:
        >>> done = compress(network, faces, folder, contract=contract, bits="w8a8", epochs=1)
        >>> done
        CompressResult(...smaller...)
        >>> embeddings = Embedder.open(done.run.onnx).embed(faces.images)
        >>> embeddings.shape
        (48, 16)
        >>> done.results.protocols[0].metric("cosine to teacher").student > 0.9
        True
        >>> compress(network, faces, contract=contract, dry_run=True).steps
        2
    """
    if recipe is None:
        recipe = Recipe.create({"teacher": _name(teacher), "faces": _name(faces), **options})
    check_inputs(recipe.model_copy(update={"teacher": _name(teacher), "faces": _name(faces)}))
    run = Run(recipe, Console(quiet, callbacks), RunDir(Path(output)), resume)
    run.directory.check(recipe, force=force, resume=resume)
    if resume and run.directory.finished:
        raise FinishedError(
            f"{output}: is finished, there is nothing to go on with; see {run.directory.report}, or add "
            "--force to make it anew"
        )
    check_device(recipe.device)
    keep_freed_memory()
    torch.set_num_threads(recipe.threads or torch.get_num_threads())
    run.console.stages.names = estimate.stages(recipe)
    with run.console.stage(estimate.READING):
        inputs = read_inputs(run, teacher, faces, contract, eval_sets)
    if dry_run:
        return plan_run(run, inputs)
    check_room(run, inputs)
    files = run.directory
    with alone_in(files.path, files.environment), _going_on(run):
        files.make(recipe, force=force, resume=resume)  # what was given can be used
        files.keep_inputs(inputs.digests, resume=resume)
        run.console.log_to(files.log)
        return _compress(run, inputs, caveat)


@contextmanager
def _going_on(run: Run) -> Iterator[None]:
    """What ends a run early says how to go on."""
    again = (
        f"{run.directory.path} is not finished. Call again with --resume (resume=True) to go on, or "
        "with --force (force=True) to begin anew"
    )
    try:
        yield
    except KeyboardInterrupt:
        run.console.warn(f"stopped; {again}")
        raise
    except WriteError as error:
        raise WriteError(f"{error}. {again}") from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"out of memory ({str(error).splitlines()[0][:160] if str(error) else 'no room'}); "
            "--memory-gb 2 lets a batch pass in smaller parts, --max-images takes fewer faces, "
            f"--batch-size and --reconstruction matter, too. {again}"
        ) from None


def _compress(run: Run, inputs: Inputs, caveat: str) -> CompressResult:
    """The method, top to bottom."""
    recipe, console, files = run.recipe, run.console, run.directory
    teacher, faces = inputs.teacher, inputs.faces
    with console.stage(estimate.EMBEDDING):
        bank = teacher_bank(run, inputs)
    batches = calibration_batches(
        teacher.model, faces, inputs.train, recipe.seed, recipe.calibration_images
    )
    pruned, latency = _prune(run, teacher.model, batches)
    start = _start(run, teacher.model if pruned is None else pruned.model, batches)
    history = train(run, inputs, start, bank)
    student = start.student if recipe.quantizes else plain(start.student)
    with console.stage(estimate.EXPORT):
        parity = _deliver(run, inputs, student, bank)
        errors = _layer_errors(inputs, start, student) if recipe.quantizes else []
    with console.stage(estimate.EVALUATION):
        training = faces.subset(inputs.train), bank.plain[inputs.train]
        found = compare(run, teacher, inputs.sets, training)
        saturated = None
        if not parity.portable:
            held = faces.subset(inputs.held)
            saturated = without_vnni(run, student, held, bank.plain[inputs.held])
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
        pruned=pruned,
        latency=latency,
        reconstructed=recipe.reconstructs,
        title=caveat,
        caveat=caveat,
        provenance=Provenance.of(recipe, inputs.digests, environment()["packages"], files.onnx),
    )
    with console.stage(estimate.REPORT):
        _report(run, inputs, results)
    return CompressResult(files, student, results, parity)


def _name(value: object) -> str:
    return str(value) if isinstance(value, str | Path) else f"<{type(value).__name__}>"


def _prune(
    run: Run, model: FaceModel, batches: list[Tensor]
) -> tuple[Pruned | None, Latency | None]:
    """The smaller float network, and its time where one was asked for."""
    recipe, console, goal, latency = run.recipe, run.console, run.recipe.prune_goal, None
    if goal is None:
        return None, None
    with console.stage(estimate.PRUNING), console.bar("pruning channels") as advance:
        options: dict[str, Any] = {
            "importance": recipe.importance,
            "round_to": recipe.round_to,
            "seed": recipe.seed,
            "progress": advance,
        }
        if goal.ms is None:
            assert goal.share is not None
            pruned = prune(model, batches, goal.share, **options)
        else:
            scheme = recipe.scheme if recipe.quantizes else None
            pruned, latency = prune_to(model, batches, goal.ms, scheme, say=console.log, **options)
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
    seen = inputs.faces.images[inputs.held], bank.plain[inputs.held]
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
    """Write metrics and report; the training state has done its work."""
    files = run.directory
    files.write_metrics(results.as_dict())
    shown = [s for s in inputs.sets if isinstance(s, EvalSet)] if run.recipe.report_faces else []
    write_text(files.card, model_card(results))
    write_report(files.report, results, shown)
    files.state.unlink(missing_ok=True)
    run.console.log(f"student: {files.onnx}   report: {files.report}")
