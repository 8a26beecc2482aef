"""The main job: teacher and faces in, a verified integer student and a report out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.data.align import check_alignment
from efquantface.data.faces import FaceSet, split
from efquantface.data.sources import load_source
from efquantface.distill.bank import TeacherBank
from efquantface.distill.settings import History, TrainData
from efquantface.distill.trainer import fine_tune
from efquantface.embedding.embedder import Embedder
from efquantface.embedding.torch_run import check_device
from efquantface.evaluation.items import EvalItem
from efquantface.evaluation.run import load_items
from efquantface.evaluation.sets import EvalSet
from efquantface.export import saturation
from efquantface.export.parity import Parity
from efquantface.graph.checkpoint import save_checkpoint
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.pipeline.compare import compare, time_files
from efquantface.pipeline.deliver import export_student, restore_length
from efquantface.pipeline.latency import prune_to
from efquantface.pipeline.preflight import check_preprocessing, model_digest, say_notes
from efquantface.pipeline.run_dir import RunDir
from efquantface.pipeline.start import Start, calibration_batches, make_start
from efquantface.prune.goal import Latency
from efquantface.prune.prune import Pruned, prune
from efquantface.quantize.float_student import plain, trainable
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import layer_errors
from efquantface.quantize.scheme import Scheme
from efquantface.recipe import Recipe
from efquantface.report.page import write_report
from efquantface.report.results import Results
from efquantface.runtime.memory import keep_freed_memory

_LAYER_FACES = 64


@dataclass
class CompressResult:
    """What :func:`compress` gives back."""

    run: RunDir
    student: FaceModel
    results: Results
    parity: Parity


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
    quiet: bool = False,
    caveat: str = "",
    **options: Any,
) -> CompressResult:
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
        caveat: a sentence for the head of table and report.

    Raises:
        EfqError: a kind of it, saying what was wrong and what to do.
    """
    if recipe is None:
        recipe = Recipe.create({"teacher": _name(teacher), "faces": _name(faces), **options})
    run, console = RunDir(Path(output)), Console(quiet)
    run.check(recipe, force=force, resume=resume)
    check_device(recipe.device)
    keep_freed_memory()
    torch.set_num_threads(recipe.threads or torch.get_num_threads())

    model = load_model(teacher, contract=contract, preprocess=recipe.preprocess)
    if recipe.licence:
        model.contract = model.contract.with_licence(recipe.licence)
    say_notes(model, console)
    face_set = _faces(faces, model.contract, recipe, console)
    sets = [*eval_sets, *load_items(recipe.evaluation.eval, model.contract, recipe.resize, console)]
    check_preprocessing(model, face_set, console)
    train, held = split(face_set, recipe.hold_out, recipe.seed)
    run.make(recipe, force=force, resume=resume)  # what was given can be used
    console.log_to(run.log)

    if not sets:
        console.say("no --eval given: all pairs of the held-out faces are the evaluation")
        sets = [EvalSet("held-out", face_set.subset(held), None, True)]
    bank = _bank(model, face_set, recipe, console)
    batches = calibration_batches(model, face_set, train, recipe.seed, recipe.calibration_images)
    pruned, latency = _prune(model, batches, recipe, console)
    smaller = model if pruned is None else pruned.model
    if recipe.quantizes:
        start = make_start(
            smaller,
            batches,
            recipe.scheme,
            recipe.budget,
            recipe.seed,
            console,
            rebuild=recipe.reconstructs,
        )
    else:
        start = Start(trainable(smaller), smaller, Scheme())
    if start.choices:
        run.write_pinned(recipe, start.scheme)
    history = _train(start, face_set, train, held, bank, recipe, run, resume, console)
    student = start.student if recipe.quantizes else plain(start.student)
    seen = face_set.images[held], bank.plain[held]
    restore_length(student, *seen)

    save_checkpoint(student, run.checkpoint)
    stored = {"efquantface.bits": recipe.bits}
    parity = export_student(student, run.onnx, *seen, stored, console)
    training = face_set.subset(train), bank.plain[train]
    results = compare(
        teacher, model, student, run, sets, history, recipe, parity, training, console
    )
    if recipe.quantizes:
        sample = torch.from_numpy(model.contract.pixels(face_set.images[held[:_LAYER_FACES]]))
        teacher_graph = quantize(start.teacher, start.scheme).graph
        results.layer_errors = layer_errors(student.graph, teacher_graph, sample)
        results.saturation = saturation.describe(student)
    results.choices, results.reconstructed = start.choices, recipe.reconstructs
    results.pruned, results.latency = pruned, latency
    results.skipped = face_set.skipped
    results.images_used = (
        len(train) if recipe.training.epochs else min(recipe.calibration_images, len(train))
    )
    results.caveat = results.title = caveat
    if recipe.benchmark:
        results.timings = time_files(teacher, model, run, recipe, console)
    run.write_metrics(results.as_dict())
    shown = [s for s in sets if isinstance(s, EvalSet)] if recipe.report_faces else []
    write_report(run.report, results, shown)
    run.state.unlink(missing_ok=True)
    console.say(f"student: {run.onnx}   report: {run.report}")
    return CompressResult(run, student, results, parity)


def _name(value: object) -> str:
    return str(value) if isinstance(value, str | Path) else f"<{type(value).__name__}>"


def _faces(
    faces: str | Path | FaceSet, contract: FaceContract, recipe: Recipe, console: Console
) -> FaceSet:
    """Load, say what was found and skipped, and check the alignment."""
    found = load_source(
        faces,
        contract,
        resize=recipe.resize,
        seed=recipe.seed,
        limit=recipe.max_images,
        exclude=None if recipe.exclude is None else Path(recipe.exclude),
        console=console,
    )
    console.say(f"faces: {found.describe()}")
    if found.people == 1:
        console.say("all of them lie in one folder: taken as unlabelled")
        found = found.unlabelled()
    for name, why in found.skipped[:5]:
        console.warn(f"skipped {name}: {why}")
    if len(found.skipped) > 5:
        console.warn(f"skipped {len(found.skipped) - 5} more files, listed in metrics.json")
    synthetic = isinstance(faces, FaceSet) or str(faces).startswith("synthetic:")
    if recipe.check_alignment and not synthetic:
        console.say(check_alignment(found, contract, recipe.seed))
    return found


def _prune(
    model: FaceModel, batches: list[torch.Tensor], recipe: Recipe, console: Console
) -> tuple[Pruned | None, Latency | None]:
    """The smaller float network, and its time where one was asked for."""
    goal, latency = recipe.prune_goal, None
    if goal is None:
        return None, None
    with console.bar("pruning channels") as advance:
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
            pruned, latency = prune_to(model, batches, goal.ms, scheme, say=console.say, **options)
    for line in pruned.describe():
        console.say(line)
    return pruned, latency


def _bank(model: FaceModel, faces: FaceSet, recipe: Recipe, console: Console) -> TeacherBank:
    """The teacher's embeddings, by the fastest form of the same network."""
    backend = "torch" if recipe.device.startswith("cuda") else "onnxruntime"
    embedder = Embedder.open(model, backend=backend, device=recipe.device, threads=recipe.threads)
    with console.bar("teacher's embeddings") as advance:
        bank = TeacherBank.build(
            embedder, faces.images, key=model_digest(model), cache=recipe.cache, progress=advance
        )
    if bank.path is not None:
        console.say(f"teacher embeddings (biometric data, mode 0600) cached in {bank.path}")
    return bank


def _train(
    start: Start,
    faces: FaceSet,
    train: np.ndarray[Any, np.dtype[np.int64]],
    held: np.ndarray[Any, np.dtype[np.int64]],
    bank: TeacherBank,
    recipe: Recipe,
    run: RunDir,
    resume: bool,
    console: Console,
) -> History:
    student = start.student
    pixels = student.contract.pixels(faces.images)
    data = TrainData.of(pixels, bank, train, held, faces.identities)
    with console.bar("fine-tuning" if recipe.training.epochs else "held-out loss") as advance:
        return fine_tune(
            student,
            data,
            recipe.training,
            run.state,
            teacher=start.teacher,
            seed=recipe.seed,
            device=recipe.device,
            resume=resume,
            say=console.say,
            progress=lambda step, total, loss: advance(step, total, f"loss {loss:.5f}"),
        )
