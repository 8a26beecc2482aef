"""Estimates the time of a run from the teacher's time for one face and from a training step."""

from __future__ import annotations

import math
import time

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from efquantface.distill.losses import LOSSES
from efquantface.distill.memory import microbatch_size, saved_bytes
from efquantface.distill.settings import Plan
from efquantface.embedding.embedder import Embedder
from efquantface.evaluation.benchmarks.gallery import GallerySet
from efquantface.evaluation.benchmarks.ijb import TemplateSet
from efquantface.evaluation.items import EvalItem
from efquantface.evaluation.sets import EvalSet
from efquantface.pipeline.inputs import Inputs
from efquantface.pipeline.run_dir import Run
from efquantface.quantize.float_student import trainable
from efquantface.quantize.fused import fused
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.recipe import Recipe

READING, EMBEDDING, CHOOSING = "reading", "teacher's embeddings", "choosing"
PRUNING = "pruning"
START, TRAINING, EXPORT = "ranges and rounding", "fine-tuning", "export"
EVALUATION, SPEED, REPORT = "evaluation", "speed", "report"

_TIMED_FACES = 32
_RANGE_CROPS = 4
_TIMED_CROPS = 21 * (1 + 16)  # for each file: 21 rounds at batch 1 and 16
_FILES = 3  # timed: the user's, its best float form, the student
_PARITY_FACES = 64 * 20  # 64 crops; the checks take as long as about 20 passes of ONNX Runtime
_REPORT_SECONDS = 3.0


def stages(recipe: Recipe) -> tuple[str, ...]:
    """The stages of a run, in order."""
    made = (PRUNING, START, TRAINING, EXPORT, EVALUATION, SPEED, REPORT)
    names = (READING, EMBEDDING, CHOOSING, *made)
    left_out = {
        CHOOSING: recipe.target is None,
        PRUNING: recipe.prune is None,
        START: not recipe.quantizes,
        TRAINING: not recipe.training.epochs,
        SPEED: not recipe.benchmark,
    }
    return tuple(name for name in names if not left_out.get(name, False))


def faces_of(item: EvalItem) -> int:
    """The number of faces in an evaluation set."""
    if isinstance(item, EvalSet):
        return len(item.faces)
    if isinstance(item, TemplateSet):
        return len(item.names)
    if isinstance(item, GallerySet):
        return len(item.gallery) + len(item.probe)
    return 0


def seconds_a_face(embedder: Embedder, faces: npt.NDArray[np.uint8]) -> float:
    """Seconds for one face, measured on the first 32 of ``faces``, uint8 (N,H,W,3)."""
    some = faces[:_TIMED_FACES]
    embedder.embed(some[:1])  # the first call allocates
    began = time.monotonic()
    embedder.embed(some)
    return (time.monotonic() - began) / len(some)


def expected_seconds(run: Run, inputs: Inputs, a_face: float) -> dict[str, float]:
    """Expected seconds by stage, for the stages that mainly embed faces.

    The student is assumed to be no slower than the teacher.

    Args:
        run: with its recipe.
        inputs: faces and evaluation sets.
        a_face: seconds that the teacher takes for one face on all threads.
    """
    mirrored = 2 if run.recipe.evaluation.options().flips else 1
    evaluated = sum(faces_of(item) for item in inputs.sets)
    threads = run.recipe.threads or torch.get_num_threads()
    return {
        EMBEDDING: 2 * len(inputs.faces) * a_face,
        EXPORT: _PARITY_FACES * a_face,
        EVALUATION: 2 * mirrored * evaluated * a_face,
        SPEED: _FILES * _TIMED_CROPS * a_face * threads,
        REPORT: _REPORT_SECONDS,
    }


def training_plan(run: Run, inputs: Inputs) -> Plan:
    """Steps, seconds a step and memory of training, estimated from two steps of a student.

    The estimate is rough: ranges are set on a few crops, nothing is compiled, and nothing is pruned.

    Raises:
        ModelFileError, RecipeError: the teacher cannot be quantized with this recipe.
    """
    recipe, settings, model = run.recipe, run.recipe.training, inputs.teacher.model
    size = min(settings.batch_size, len(inputs.train))
    steps = max(len(inputs.train) // size, 1) * settings.epochs
    size = -(-size // (recipe.devices or 1))  # each device's share
    pixels = torch.from_numpy(model.contract.pixels(inputs.faces.images[inputs.train[:size]]))
    student = trainable(model) if not recipe.quantizes else quantize(model, recipe.scheme)
    if recipe.quantizes:
        set_ranges(student.graph, [pixels[:_RANGE_CROPS]])
    module = fused(student.graph).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = pixels.float().contiguous(memory_format=torch.channels_last)
    weights = sum(p.numel() for p in student.graph.parameters())
    part, memory = microbatch_size(
        size, saved_bytes(module, x[:4]), weights, settings.memory_gb * 2**10
    )
    module.to(recipe.device)
    x = x.to(recipe.device)
    target = torch.randn(size, model.contract.embedding_size, generator=torch.Generator())
    seconds = math.inf
    for _ in range(2):  # the first step allocates
        seconds = min(seconds, _step(module, x, target.to(recipe.device), part))
    return Plan(steps, seconds, memory)


def _step(module: torch.nn.Module, pixels: Tensor, target: Tensor, part: int) -> float:
    """Seconds of the forward and backward passes of a batch, in microbatches of ``part`` images."""
    began = time.monotonic()
    for x, t in zip(torch.split(pixels, part), torch.split(target, part), strict=True):
        LOSSES["cosine"](module(x), t).backward()  # type: ignore[no-untyped-call]
    if pixels.is_cuda:
        torch.cuda.synchronize()
    module.zero_grad(set_to_none=True)
    return time.monotonic() - began
