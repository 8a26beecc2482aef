"""A dry run: what was found, and what a run would do with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from efquantface.contract import FaceContract
from efquantface.distill.memory import peak_memory_mb
from efquantface.distill.settings import Plan
from efquantface.pipeline.estimate import (
    START,
    TRAINING,
    expected_seconds,
    faces_of,
    seconds_a_face,
    stages,
    training_plan,
)
from efquantface.pipeline.inputs import Inputs
from efquantface.pipeline.room import needed_bytes
from efquantface.pipeline.run_dir import Run
from efquantface.pipeline.start import reconstruction_mb


@dataclass(frozen=True, repr=False)
class RunPlan:
    """What ``compress(..., dry_run=True)`` gives.

    Attributes:
        teacher: its name.
        parameters: of the teacher.
        contract: what it expects of its crops.
        images, identities: of the faces; 0 identities where they are not labelled.
        train, held: images to train on, and held out.
        sets: evaluation sets, each with its number of images.
        alignment: what the check of landmarks said; empty where it was not made.
        stages: in order.
        seconds: expected, by stage; stages whose time cannot be told in advance are missing.
        steps: of training.
        memory_mb: expected at most, of the whole process.
        disk_mb: room that the run's folder takes at most.
    """

    teacher: str
    parameters: int
    contract: FaceContract
    images: int
    identities: int
    train: int
    held: int
    sets: dict[str, int]
    alignment: str
    stages: tuple[str, ...]
    seconds: dict[str, float]
    steps: int
    memory_mb: float
    disk_mb: float

    def __repr__(self) -> str:
        """One line."""
        return f"RunPlan({self.teacher}, {self.images:,} images: {self.describe()})"

    @property
    def minutes(self) -> float:
        """Of all stages whose time can be told."""
        return sum(self.seconds.values()) / 60

    def describe(self) -> str:
        """The plan in one line."""
        untold = [name for name in self.stages if name not in self.seconds]
        besides = f", and {', '.join(untold)}" if untold else ""
        memory = f"{self.memory_mb / 1024:.1f} GB of memory"
        disk = f"{self.disk_mb:,.0f} MB of disk"
        return f"about {self.minutes:.1f} minutes{besides}; {memory}, {disk}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "minutes": self.minutes}


def plan_run(run: Run, inputs: Inputs) -> RunPlan:
    """Time a few faces and one training step, and say what a run would do. Nothing is written.

    Raises:
        EfqError: a kind of it; the teacher cannot be quantized as the recipe says.
    """
    recipe, console, teacher = run.recipe, run.console, inputs.teacher
    names = stages(recipe)
    embedder = teacher.embedder(threads=recipe.threads)
    told = expected_seconds(run, inputs, seconds_a_face(embedder, inputs.faces.images))
    training = training_plan(run, inputs) if recipe.training.epochs else None
    if training is not None:
        told[TRAINING] = training.steps * training.seconds_a_step
    plan = RunPlan(
        teacher=teacher.model.name,
        parameters=teacher.model.parameters,
        contract=teacher.contract,
        images=len(inputs.faces),
        identities=inputs.faces.people if inputs.faces.has_identities else 0,
        train=len(inputs.train),
        held=len(inputs.held),
        sets={item.name: faces_of(item) for item in inputs.sets},
        alignment=inputs.alignment,
        # reading has been done just now
        stages=names[1:],
        seconds={name: told[name] for name in names if name in told},
        steps=0 if training is None else training.steps,
        memory_mb=_memory_mb(run, inputs, training),
        disk_mb=needed_bytes(run, inputs) / 1e6,
    )
    for name, count in plan.sets.items():
        console.log(f"evaluation: {name}, {count:,} images")
    console.log(f"to train on: {plan.train:,} images; held out: {plan.held:,}")
    for number, name in enumerate(plan.stages, 1):
        console.log(f"  {number}. {name}{_expected(plan, name, training)}")
    console.log(f"plan, roughly: {plan.describe()}. Nothing was written.")
    return plan


def _memory_mb(run: Run, inputs: Inputs, training: Plan | None) -> float:
    """Of what takes most: training, or rounding layers beside what is in use already."""
    rounding = peak_memory_mb()
    if run.recipe.reconstructs:
        rounding += reconstruction_mb(inputs.teacher.model)
    return rounding if training is None else max(rounding, training.memory_mb)


def _expected(plan: RunPlan, name: str, training: Plan | None) -> str:
    if name == TRAINING and training is not None:
        return f": {training.steps:,} steps, about {plan.seconds[name]:.0f} s"
    if name in plan.seconds:
        return f": about {plan.seconds[name]:.0f} s"
    return ": takes longer the larger the network is" if name == START else ""
