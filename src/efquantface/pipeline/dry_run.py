"""A dry run: checks the inputs, and estimates what a run would take."""

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
    """What ``compress(..., dry_run=True)`` returns.

    Attributes:
        teacher: its name.
        parameters: of the teacher.
        contract: of the teacher.
        images, identities: numbers of the faces; 0 identities if the faces have none.
        train, held: numbers of images to train on, and held out.
        sets: number of images by evaluation set.
        alignment: the result of the landmark check; empty if there was none.
        stages: in order.
        seconds: expected, by stage; without stages whose time is unknown.
        steps: of training.
        memory_mb: expected peak of the whole process.
        disk_mb: the most that the run's folder takes.
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
        """The plan in one line, with teacher and number of images."""
        return f"RunPlan({self.teacher}, {self.images:,} images: {self.describe()})"

    @property
    def minutes(self) -> float:
        """Expected minutes of all stages in :attr:`seconds`."""
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
    """Time a few faces and two training steps, and print what a run would do. Nothing is written.

    Raises:
        EfqError: one of its subclasses: the teacher cannot be quantized with this recipe.
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
        # reading is done
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
    """The larger of two peaks: of training, and of rounding layers on top of what is in use."""
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
