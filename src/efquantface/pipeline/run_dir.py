"""A run: its recipe, its console and its directory. Other runs are not overwritten by accident."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from efquantface.console import Console
from efquantface.distill.ranks import ALONE, Ranks
from efquantface.errors import RecipeError, RunError
from efquantface.files import make_folder, write_text
from efquantface.pipeline.lock import NAME as LOCK
from efquantface.pipeline.lock import this_process
from efquantface.quantize.scheme import Scheme
from efquantface.recipe import Recipe
from efquantface.runtime.environment import environment
from efquantface.runtime.sessions import default_threads


@dataclass(frozen=True)
class RunDir:
    """Paths of a run's files."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe with every default written out."""
        return self.path / "recipe.yaml"

    @property
    def log(self) -> Path:
        """All log lines and warnings."""
        return self.path / "log.txt"

    @property
    def state(self) -> Path:
        """The training state that a resumed run starts from."""
        return self.path / "state.pt"

    @property
    def checkpoint(self) -> Path:
        """The student in PyTorch, to train further or to evaluate."""
        return self.path / "student.safetensors"

    @property
    def onnx(self) -> Path:
        """The student for ONNX Runtime and OpenVINO."""
        return self.path / "student.onnx"

    @property
    def metrics(self) -> Path:
        """All metrics."""
        return self.path / "metrics.json"

    @property
    def inputs(self) -> Path:
        """Digests of teacher and faces; a resumed run compares them with its own."""
        return self.path / "inputs.json"

    @property
    def choice(self) -> Path:
        """The ways tried for a target, and the one chosen; a resumed run keeps it."""
        return self.path / "choice.json"

    @property
    def bank(self) -> Path:
        """The teacher's embeddings during a run, if they are neither in memory nor in the cache."""
        return self.path / "teacher.npy"

    @property
    def timings(self) -> Path:
        """Ms of the networks that were timed for a choice by time."""
        return self.path / "timings.json"

    @property
    def environment(self) -> Path:
        """Versions, processor, seed and process."""
        return self.path / "env.json"

    @property
    def finished(self) -> bool:
        """Whether the directory holds a finished run."""
        last = (self.onnx, self.metrics, self.report)
        return all(file.is_file() for file in last) and not self.state.exists()

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.path / "MODEL_CARD.md"

    def check(self, recipe: Recipe, *, force: bool, resume: bool) -> None:
        """Check that a run with ``recipe`` may be written here. Nothing is changed.

        Args:
            recipe: of the run.
            force: an existing run may be replaced.
            resume: an existing run with the same recipe may be continued.

        Raises:
            RunError: the directory exists (without ``force`` or ``resume``), is no run, is a run of
                another recipe (with ``resume``), or cannot be written.
        """
        path = self.path
        if path.exists() and not path.is_dir():
            raise RunError(f"{path}: is a file; choose another -o")
        there = next(p for p in (path, *path.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.R_OK | os.W_OK | os.X_OK):
            raise RunError(
                f"{path}: cannot be written, no permission in {there}; choose another -o"
            )
        if not path.is_dir() or self._holds_nothing():
            return
        if not (resume or force):
            raise RunError(f"{path}: exists; add --resume to go on, --force to replace it")
        if not self.recipe.is_file():
            raise RunError(f"{path}: is not a run of efquantface; choose another -o")
        if resume:
            self._check_same(recipe)

    def make(self, recipe: Recipe, *, force: bool, resume: bool) -> None:
        """Make the directory with recipe and environment; ``force`` removes an old run's files.

        If it is stopped at any moment, it leaves nothing or a valid run. The recipe is written first,
        and it stays while an old run is removed.

        Args:
            recipe, force, resume: as for :meth:`check`.

        Raises:
            RunError: as :meth:`check`.
        """
        self.check(recipe, force=force, resume=resume)
        path = self.path
        try:
            make_folder(path)
            if force and not resume:
                self._empty()
            write_text(self.recipe, recipe.to_yaml())
            found = {**environment(), "seed": recipe.seed, "process": this_process()}
            write_text(self.environment, json.dumps(found, indent=2) + "\n")
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error.strerror})") from None

    def _empty(self) -> None:
        """Remove everything but the recipe, which marks the folder as a run; the state goes first."""
        for file in sorted(self.path.iterdir(), key=lambda p: p != self.state):
            if file in (self.recipe, self.path / LOCK):
                continue
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            else:
                file.unlink()

    def _holds_nothing(self) -> bool:
        """Whether it is empty, or holds a run that was stopped before it had results."""
        names = {file.name for file in self.path.iterdir() if not file.name.endswith(".partial")}
        names.discard(LOCK)
        if not names:
            return True
        if not names <= _STARTED or not self.recipe.is_file():
            return False
        try:  # a run writes out every default, a user does not
            return Recipe.read(self.recipe).to_yaml() == self.recipe.read_text(encoding="utf-8")
        except RecipeError:
            return False

    def keep_inputs(self, found: dict[str, Any], *, resume: bool) -> None:
        """Write the digests of a run's inputs; a resumed run must have the same.

        Args:
            found: digests by name.
            resume: whether the run is resumed.

        Raises:
            RunError: the run was started with another teacher or other faces.
        """
        if resume and self.inputs.is_file():
            try:
                before = json.loads(self.inputs.read_text(encoding="utf-8"))
            except ValueError:
                before = {}
            changed = [name for name in found if before.get(name, found[name]) != found[name]]
            if changed:
                told = ", ".join(f"{n} ({before[n]} then, {found[n]} now)" for n in changed)
                raise RunError(
                    f"{self.path}: since the run began, this has changed: {told}. Give it what it "
                    "began with, or start again with --force"
                )
        write_text(self.inputs, json.dumps(found, indent=2) + "\n")

    def _check_same(self, recipe: Recipe) -> None:
        before = Recipe.read(self.recipe)
        changed = [
            name
            for part, whole in ((before, recipe), (before.training, recipe.training))
            for name in type(part).model_fields
            if getattr(part, name) != getattr(whole, name) and name not in _MAY_CHANGE
        ]
        if changed:
            raise RunError(
                f"{self.path}: was started with another {', '.join(changed)}; resume with the same "
                "values, or choose another -o"
            )

    def write_pinned(self, recipe: Recipe, scheme: Scheme) -> None:
        """Write pinned.yaml: the recipe with the bits that the budget chose for each layer."""
        layers = {pattern: str(bits) for pattern, bits in scheme.layers}
        self.pin(recipe.model_copy(update={"budget": None, "layers": layers}))

    def pin(self, recipe: Recipe) -> None:
        """Write pinned.yaml: the recipe with all choices made."""
        write_text(self.path / "pinned.yaml", recipe.to_yaml())

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write metrics.json."""
        write_text(self.metrics, json.dumps(metrics, indent=2) + "\n")


@dataclass(frozen=True)
class Run:
    """What every stage needs.

    Attributes:
        recipe: all settings.
        console: for log and progress.
        directory: the run's files.
        resume: start from the saved training state, if there is one.
        ranks: the processes of the run.
    """

    recipe: Recipe
    console: Console
    directory: RunDir
    resume: bool = False
    ranks: Ranks = field(default_factory=lambda: ALONE)

    @property
    def device(self) -> str:
        """The device of this process."""
        return self.recipe.device if self.ranks.alone else self.ranks.device

    @property
    def threads(self) -> int | None:
        """Threads of this process while all processes work; None: the runtime chooses."""
        if self.recipe.threads or self.ranks.alone:
            return self.recipe.threads
        return max(default_threads() // self.ranks.local_count, 1)


_STARTED = {
    *("recipe.yaml", "timings.json", "env.json", "inputs.json", "log.txt"),
    *("pinned.yaml", "choice.json"),
}
_MAY_CHANGE = (
    *("threads", "devices", "faces_gb", "report_faces", "benchmark", "evaluation", "training"),
)
