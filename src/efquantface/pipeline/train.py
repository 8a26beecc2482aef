"""Computes the teacher's embeddings of all faces, and trains the student on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from efquantface.distill.bank import TeacherBank
from efquantface.distill.settings import History, TrainData
from efquantface.distill.trainer import fine_tune
from efquantface.pipeline import estimate
from efquantface.pipeline.inputs import Inputs
from efquantface.pipeline.run_dir import Run
from efquantface.pipeline.start import Start


def teacher_bank(run: Run, inputs: Inputs) -> TeacherBank:
    """The teacher's embeddings, from its fastest form. Estimates the time of later stages, too."""
    recipe, console, teacher, images = run.recipe, run.console, inputs.teacher, inputs.faces.images
    embedder = teacher.embedder(
        backend="torch" if run.device.startswith("cuda") else "onnxruntime",
        device=run.device,
        threads=run.threads,
    )
    if run.ranks.first:
        a_face = estimate.seconds_a_face(embedder, images)
        console.stages.expected = estimate.expected_seconds(run, inputs, a_face)
    with console.bar("teacher's embeddings") as advance:
        bank = TeacherBank.build(
            embedder,
            images,
            key=teacher.digest,
            cache=recipe.cache,
            spill=run.directory.bank,
            ranks=run.ranks,
            progress=advance,
        )
    if bank.path is not None:
        console.log(f"teacher embeddings (biometric data, mode 0600) cached in {bank.path}")
    return bank


@contextmanager
def _threads(run: Run) -> Iterator[None]:
    """The processes on a machine share its threads in training; before and after, the first has all."""
    before = torch.get_num_threads()
    torch.set_num_threads(run.threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train(run: Run, inputs: Inputs, start: Start, bank: TeacherBank) -> History:
    """Train the student in place; without epochs, only measure the held-out loss.

    Raises:
        TrainingError: training cannot go on.
        RunError: the saved state cannot be resumed from, or another process has ended.
    """
    recipe, console, faces = run.recipe, run.console, inputs.faces
    contract = start.student.contract
    data = TrainData.of(faces.images, contract, bank, inputs.train, inputs.held, faces.identities)
    epochs = recipe.training.epochs
    with (
        console.stage(estimate.TRAINING),
        _threads(run),
        console.bar("fine-tuning" if epochs else "held-out loss") as advance,
    ):

        def progress(step: int, total: int, loss: float) -> None:
            advance(step, total, f"loss {loss:.5f}")
            if epochs:
                console.step(step, total, loss)

        return fine_tune(
            start.student,
            data,
            recipe.training,
            run.directory.state,
            teacher=start.teacher,
            seed=recipe.seed,
            device=run.device,
            ranks=None if run.ranks.alone else run.ranks,
            resume=run.resume,
            say=console.log,
            progress=progress,
            validated=lambda step, loss: console.metrics(
                estimate.TRAINING, {"step": step, "held-out loss": loss}
            ),
        )
