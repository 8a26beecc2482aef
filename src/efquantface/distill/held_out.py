"""The held-out loss, and the weights that were best by it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from efquantface.distill.losses import LOSSES
from efquantface.distill.microbatch import Microbatches
from efquantface.distill.pixels import as_input
from efquantface.distill.ranks import Ranks
from efquantface.distill.settings import History, TrainData, TrainSettings
from efquantface.errors import TrainingError
from efquantface.graph.model import FaceModel
from efquantface.quantize.placement import refresh_biases

Say = Callable[[str], None]
StepProgress = Callable[[int, int, float], None]
Validated = Callable[[int, float], None]


class HeldOut:
    """The held-out images, of which each process passes a part.

    Attributes:
        best: the best weights so far, in the first process.
    """

    def __init__(
        self,
        student: FaceModel,
        data: TrainData,
        settings: TrainSettings,
        ranks: Ranks,
        history: History,
        say: Say,
        progress: StepProgress,
        validated: Validated,
    ) -> None:
        self.student, self.data, self.settings = student, data, settings
        self.ranks, self.history = ranks, history
        self.say, self.progress, self.validated = say, progress, validated
        self.name = "cosine" if settings.loss == "none" else settings.loss
        self.loss = LOSSES[self.name]
        self.best: dict[str, Tensor] = {}

    def look(self, model: Any, microbatches: Microbatches, step: int) -> None:
        """The loss with the exact biases of the file; keeps the best weights.

        Args:
            model: one that no other process waits for.

        Raises:
            TrainingError: the loss is not finite.
        """
        refresh_biases(self.student.graph)
        total, count = self.ranks.totals(self._sums(model, microbatches.size))
        value = total / count
        if not math.isfinite(value):
            raise TrainingError(f"the held-out loss is {value} after step {step}")
        self.history.held_out.append((step, value))
        self.validated(step, value)
        # a metric loss alone leaves the embedding free to turn away from the teacher's
        alone = self.settings.loss == "none"
        least = dict(self.history.held_out)[self.history.best_step]
        if alone or value <= least:
            self.history.best_step = step
            if self.ranks.first:
                state = self.student.graph.state_dict()
                self.best = {key: tensor.detach().cpu().clone() for key, tensor in state.items()}
        self.say(f"step {step}: held-out {self.name} loss {value:.5f}")

    def _sums(self, model: Any, size: int) -> tuple[float, float]:
        """The loss summed over this process's images, and how many they are."""
        total, count = 0.0, 0
        images = len(self.data.held_pixels)
        for start in range(self.ranks.rank * size, images, self.ranks.count * size):
            pixels = self.data.held_pixels[start : start + size]
            missing = size - len(pixels)
            if missing:  # one compiled shape: fill up, and leave the filling out of the loss
                pixels = np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])
            teacher = torch.from_numpy(np.asarray(self.data.held_teacher[start : start + size]))
            # a compiled graph keeps its gradients: without them it would be compiled a second time
            with torch.set_grad_enabled(self.history.compiled):
                out = model(as_input(pixels, self.ranks.fabric.device))
            embedding = out[0] if self.settings.layer_weight else out
            kept = embedding.detach()[: size - missing]
            total += float(self.loss(kept, teacher.to(kept.device))) * len(kept)
            count += len(kept)
            if not self.settings.epochs:
                self.progress(min(count * self.ranks.count, images), images, total / count)
        return total, count
