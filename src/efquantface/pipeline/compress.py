"""Compresses a network: takes teacher and faces, gives a checked student and a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import nn

from efquantface.callbacks import Callback
from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.distill.ranks import Ranks
from efquantface.distill.started import Started
from efquantface.embedding.torch_run import check_device
from efquantface.errors import FinishedError, OutOfMemoryError, WriteError
from efquantface.evaluation.items import EvalItem
from efquantface.graph.model import FaceModel
from efquantface.pipeline import estimate
from efquantface.pipeline.dry_run import RunPlan, plan_run
from efquantface.pipeline.inputs import check_alike, read_inputs
from efquantface.pipeline.lock import alone_in
from efquantface.pipeline.method import CompressResult, take_part, work
from efquantface.pipeline.paths import check_inputs
from efquantface.pipeline.room import check_room
from efquantface.pipeline.run_dir import Run, RunDir
from efquantface.recipe import Recipe
from efquantface.runtime.memory import is_out_of_memory, keep_freed_memory
from efquantface.runtime.sessions import default_threads


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
    """Compress a face-recognition network, and measure what it loses.

    Args:
        teacher: an ONNX file, a checkpoint, the name of a default, or an ``nn.Module`` together
            with ``contract``.
        faces: a folder of aligned crops (one subfolder an identity, or images without identities),
            any other source that ``efq compress`` takes, ``synthetic:COUNT``, or a :class:`FaceSet`.
        output: the run's directory.
        contract: of an ``nn.Module``; overrides the contract of a file.
        eval_sets: evaluation sets in memory, beside the recipe's ``eval``.
        recipe: all settings at once; then ``options`` are not used.
        force, resume: replace an existing run; continue an unfinished one.
        dry_run: print what was found and what would be done, and write nothing.
        quiet: print nothing.
        caveat: a sentence at the top of table and report.
        callbacks: called with progress, losses and metrics.
        options: fields of the recipe (``bits="w8a8"``, ``eval=("lfw=DIR",)``, ``epochs=2``, ...).

    Returns:
        The student, its files and all metrics; for a dry run, the plan.

    Raises:
        EfqError: one of its subclasses; the message says what is wrong and what to do.
        KeyboardInterrupt: the user stopped the run; ``resume`` continues it.
        SystemExit: on several devices, in all processes but the first, when their work is done.

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
    started = Started.find(recipe.devices, recipe.device)
    files = RunDir(Path(output))
    if started.starts:
        _check_directory(files, recipe, force, resume)  # before other processes are started
    check_device(recipe.device)
    keep_freed_memory()
    if dry_run:
        if started.rank:
            raise SystemExit(0)
        ranks = Ranks(Started(), recipe.device)
    else:
        ranks = Ranks.join(started, recipe.device)
    with ranks.together():
        console = Console(quiet, callbacks) if ranks.first else Console(True)
        run = Run(recipe, console, files, resume, ranks)
        if ranks.first:
            _check_directory(files, recipe, force, resume)
        torch.set_num_threads(recipe.threads or _threads(ranks))
        console.stages.names = estimate.stages(recipe)
        with console.stage(estimate.READING):
            inputs = read_inputs(run, teacher, faces, contract, eval_sets)
        if dry_run:
            return plan_run(run, inputs)
        check_alike(run, inputs)
        if not ranks.first:
            take_part(run, inputs)
        check_room(run, inputs)
        with alone_in(files.path, files.environment), _going_on(run):
            files.make(recipe, force=force, resume=resume)  # after the inputs are checked
            files.keep_inputs(inputs.digests, resume=resume)
            console.log_to(files.log)
            if not ranks.alone:
                console.log(f"{ranks.count} processes train together, each on its own device")
            return work(run, inputs, caveat)


def _check_directory(files: RunDir, recipe: Recipe, force: bool, resume: bool) -> None:
    """Check that a run may be written there.

    Raises:
        RunError: it may not.
        FinishedError: ``resume``, and the run is finished.
    """
    files.check(recipe, force=force, resume=resume)
    if resume and files.finished:
        raise FinishedError(
            f"{files.path}: is finished, there is nothing to resume; see {files.report}, or add "
            "--force to replace it"
        )


def _threads(ranks: Ranks) -> int:
    """Threads of the first process: all, since it works alone for most of a run."""
    return torch.get_num_threads() if ranks.alone else default_threads()


@contextmanager
def _going_on(run: Run) -> Iterator[None]:
    """Say how to resume when a run ends early."""
    again = (
        f"{run.directory.path} is not finished. Call again with --resume (resume=True) to go on, or "
        "with --force (force=True) to start again"
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
            "--memory-gb 2 uses smaller microbatches, --max-images takes fewer faces, "
            f"--batch-size and --reconstruction matter, too. {again}"
        ) from None


def _name(value: object) -> str:
    return str(value) if isinstance(value, str | Path) else f"<{type(value).__name__}>"
