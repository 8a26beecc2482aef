"""A run's files as they are before training, for its speed: the same channels, other weights."""

from __future__ import annotations

from pathlib import Path

from efquantface.console import Console
from efquantface.data.faces import load_faces, split
from efquantface.export.onnx_writer import write_onnx
from efquantface.graph.checkpoint import save_checkpoint
from efquantface.graph.model import FaceModel
from efquantface.pipeline.start import calibration_batches, make_start
from efquantface.prune.prune import prune
from efquantface.recipe import Recipe


class SameChannels:
    """Makes students of one teacher; what several of them have in common is made once."""

    def __init__(self, teacher: FaceModel, faces: Path) -> None:
        loaded = load_faces(faces, teacher.contract)
        recipe = Recipe.create({"teacher": str(teacher.source), "faces": str(faces)})
        train, _ = split(loaded, recipe.hold_out, recipe.seed)
        self._teacher = teacher
        self._batches = calibration_batches(
            teacher, loaded, train, recipe.seed, recipe.calibration_images
        )
        self._pruned: dict[tuple[float, str], FaceModel] = {}

    def write(self, run: Path, recipe: Recipe) -> None:
        """student.safetensors and student.onnx of the folder ``run``."""
        run.mkdir(parents=True, exist_ok=True)
        student = self._smaller(recipe)
        if recipe.quantizes:
            # a speed asks little of ranges
            few, console = self._batches[:1], Console(quiet=True)
            student = make_start(
                student, few, recipe.scheme, None, recipe.seed, console, rebuild=False
            ).student
        save_checkpoint(student, run / "student.safetensors")
        write_onnx(student, run / "student.onnx")

    def _smaller(self, recipe: Recipe) -> FaceModel:
        goal = recipe.prune_goal
        if goal is None:
            return self._teacher
        assert goal.share is not None
        key = goal.share, recipe.importance
        if key not in self._pruned:
            self._pruned[key] = prune(
                self._teacher,
                self._batches,
                goal.share,
                importance=recipe.importance,
                round_to=recipe.channels_round_to,
                seed=recipe.seed,
            ).model
        return self._pruned[key]
