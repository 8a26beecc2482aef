"""Fine-tuning: minutes of distillation on the small set, resumable, the best checkpoint kept."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from efquantface.data.strangers import strangers
from efquantface.distill.batches import Batches
from efquantface.distill.held_out import HeldOut, Say, StepProgress, Validated
from efquantface.distill.layerwise import LayerDistillation
from efquantface.distill.memory import peak_memory_mb
from efquantface.distill.metric_bank import MetricBank, fill_bank
from efquantface.distill.microbatch import Microbatches
from efquantface.distill.optimizer import parameter_groups, rate_for, schedule
from efquantface.distill.pixels import as_input
from efquantface.distill.prepared import Prepared
from efquantface.distill.ranks import Ranks
from efquantface.distill.settings import History, Plan, TrainData, TrainSettings
from efquantface.distill.started import Started
from efquantface.distill.state import read_state, unusable, write_state
from efquantface.errors import TrainingError
from efquantface.graph.model import FaceModel
from efquantface.quantize.damping import draw_to_codes
from efquantface.quantize.fused import fused
from efquantface.quantize.placement import refresh_biases

_SAVE_EVERY = 60.0  # seconds between checkpoints inside an epoch
_OTHER_LOSSES_RATE = 4e-4


def fine_tune(
    student: FaceModel,
    data: TrainData,
    settings: TrainSettings,
    state_path: Path,
    *,
    teacher: FaceModel | None = None,
    seed: int = 0,
    device: str = "cpu",
    ranks: Ranks | None = None,
    resume: bool = False,
    say: Say = lambda _: None,
    progress: StepProgress = lambda *_: None,
    validated: Validated = lambda *_: None,
) -> History:
    """Train ``student`` in place; it ends with the weights of the best held-out loss.

    The untrained start is among the candidates, except where no distillation is asked for: then the
    last weights are kept. The order of images and mirrors depends on seed and epoch only, so a
    resumed run ends with the same weights as an unbroken one. ``teacher`` is the float network that
    the student was quantized from, which ``layer_weight`` needs. ``progress`` is called with step, steps
    and loss, ``validated`` with step and held-out loss.

    Of several processes (``ranks``) each gives the same student, data and settings, and takes its share
    of every batch; the first one keeps the state and ends with the best weights. The order of images,
    the learning rate and the losses are those of one process.

    Raises:
        TrainingError: a loss or gradient that is not finite, or fewer images a step than processes.
        RunError: the saved state belongs to another run.
        KeyboardInterrupt: after the state has been saved.
    """
    module: nn.Module = fused(student.graph)
    if settings.layer_weight and settings.epochs:
        if teacher is None:
            raise TrainingError("distilling layers needs the float network the student came from")
        module = LayerDistillation(student.graph, copy.deepcopy(teacher.graph))
        module.student = fused(module.student)
    ranks = ranks or Ranks(Started(), device)
    trainer = _Trainer(student, module, data, settings, seed, ranks, state_path, say)
    trainer.progress, trainer.validated = progress, validated
    return trainer.run(resume)


class _Trainer:
    def __init__(
        self,
        student: FaceModel,
        module: nn.Module,
        data: TrainData,
        settings: TrainSettings,
        seed: int,
        ranks: Ranks,
        state_path: Path,
        say: Say,
    ) -> None:
        self.student, self.module, self.ranks = student, module, ranks
        self.data, self.settings = data, settings
        self.state_path, self.say = state_path, say
        self.progress: StepProgress = lambda *_: None
        self.validated: Validated = lambda *_: None
        self.history = History()
        self.batches = Batches(data, settings, seed, say)
        self.batch, self.steps_an_epoch = self.batches.size, self.batches.an_epoch
        if self.batch < ranks.count:
            raise TrainingError(
                f"{self.batch} images a step for {ranks.count} devices: take fewer devices, or a "
                "larger --batch-size"
            )
        self.total = self.steps_an_epoch * settings.epochs
        self.step = 0
        self.stepping = False
        self.rate = 0.0
        self.prepared = Prepared(module, settings, ranks, say)
        torch.manual_seed(seed)
        self.fabric = ranks.fabric

    def run(self, resume: bool) -> History:
        graph = self.student.graph
        with self.ranks.file(self.state_path if resume else None) as path:
            state = None if path is None else read_state(path, self.total, self.state_path)
        self.microbatches = self._microbatches(state)
        optimizer = torch.optim.AdamW(parameter_groups(graph, self.settings), eps=1e-12)
        if not self.ranks.alone:
            self.prepared.leave_out_unreached(self.data)
        module = self.prepared.module_on(self.fabric.device, self.total, self._trial)
        self.history.compiled = self.prepared.compiled
        model: Any = self.fabric.setup(module, optimizer, _reapply_compile=False)[0]
        # without gradients nobody waits for the others
        self.bare: Any = model if self.ranks.alone else module
        self.held = HeldOut(
            self.student,
            self.data,
            self.settings,
            self.ranks,
            self.history,
            self.say,
            self.progress,
            self.validated,
        )
        if state is None:
            self.held.look(self.bare, self.microbatches, self.step)
        else:
            self._take(state, optimizer)
        if self.settings.metric != "none" and self.step < self.total:
            self.microbatches.metric = self._metric_bank()
            if state is not None:
                self.microbatches.metric.restore(state["metric"])
        if self.step < self.total:
            device = self.fabric.device
            cuda = device.type == "cuda"
            self.history.device = torch.cuda.get_device_name(device) if cuda else "cpu"
            self._set_rate(optimizer)
            self.say(self._plan(model).describe())
        self._steps(model, optimizer)
        if self.held.best:
            graph.load_state_dict(self.held.best)
        refresh_biases(graph)
        self.history.peak_memory_mb = peak_memory_mb()
        return self.history

    def _steps(self, model: Any, optimizer: Any) -> None:
        """The training; what is unfinished when it is stopped has been saved."""
        began, saved = time.monotonic(), time.monotonic()
        try:
            while self.step < self.total:
                self._train_step(model, optimizer)
                if self.step % self.steps_an_epoch == 0:
                    self.held.look(self.bare, self.microbatches, self.step)
                    self._save(optimizer, began)
                    began = saved = time.monotonic()
                elif time.monotonic() - saved > _SAVE_EVERY:
                    self._save(optimizer, began)
                    began = saved = time.monotonic()
        except (KeyboardInterrupt, RuntimeError) as error:
            stopped = isinstance(error, KeyboardInterrupt)
            if not stopped and self.ranks.lost(error) is None:
                raise
            if not self.stepping or self.ranks.alone:
                self._save(optimizer, began)
                self.say(f"stopped at step {self.step} of {self.total}; go on with --resume")
            raise

    def _microbatches(self, state: dict[str, Any] | None) -> Microbatches:
        """As many in every process; the same again, or sums would round differently."""
        share = -(-self.batch // self.ranks.count)
        if state is not None and state["devices"] == self.ranks.count:
            size = int(state["microbatch"])
        else:
            weights = sum(p.numel() for p in self.student.graph.parameters())
            size = int(
                self.ranks.once(
                    lambda: str(self.prepared.microbatch(share, weights, self.data)).encode()
                )
            )
        return Microbatches(self.settings, self.ranks, size, max(share // size, 1))

    def _trial(self, compiled: Any) -> None:
        pixels, teacher = self._batch_at(0)
        size = self.microbatches.size
        loss, _ = self.microbatches.distil(compiled, pixels[:size], teacher[:size])
        torch.autograd.backward(loss)

    def _metric_bank(self) -> MetricBank:
        """The metric loss, with the student's present embeddings."""

        def embed(index: npt.NDArray[np.int64]) -> Tensor:
            pixels = as_input(self.data.pixels[index[self.ranks.share]], self.fabric.device)
            return self.ranks.whole(self.microbatches.embed(self.bare, pixels), len(index))

        return fill_bank(embed, self.data, self.batches, self.settings.metric, self.say)

    def _set_rate(self, optimizer: torch.optim.Optimizer) -> None:
        """The weights' learning rate: as told, or by the held-out loss before training."""
        rate = self.settings.lr
        if rate is None:
            alike = strangers(self.data.plain)
            start = min(self.history.held_out[0][1] / max(1 - alike, 1e-6), 1.0)
            rate = (
                _OTHER_LOSSES_RATE if self.settings.loss == "mse" else rate_for(start, self.batch)
            )
            self.say(f"learning rate {rate:.2g} of each channel's largest weight")
        self.rate = rate
        for group in optimizer.param_groups:
            if group["base_lr"] is None:
                group["base_lr"] = rate

    def _batch_at(self, step: int) -> tuple[Tensor, Tensor]:
        """Pixels and teacher embeddings of a step, this process's share; a function of seed and step."""
        index, flip = (values[self.ranks.share] for values in self.batches.at(step))
        pixels = np.array(self.data.pixels[index])
        pixels[flip] = pixels[flip][..., ::-1]
        teacher = np.where(flip[:, None], self.data.mirrored[index], self.data.plain[index])
        device = self.fabric.device
        return as_input(pixels, device), torch.from_numpy(teacher.astype(np.float32)).to(device)

    def _train_step(self, model: Any, optimizer: Any) -> None:
        factor = schedule(self.step, self.total)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        identities = None
        if self.microbatches.metric is not None:
            index = self.batches.at(self.step)[0]
            identities = torch.from_numpy(self.batches.identities()[index])
        self.microbatches.layer_weight = self.settings.layer_weight * (1 - self.step / self.total)
        value = self.microbatches.backward(
            model, self.bare, *self._batch_at(self.step), identities, self.batch
        )
        if not math.isfinite(value):
            raise TrainingError(f"the loss is {value} at step {self.step}; try a smaller --lr")
        norm = nn.utils.clip_grad_norm_(self.student.graph.parameters(), self.settings.clip)
        if not torch.isfinite(norm):
            raise TrainingError(f"a gradient is not finite at step {self.step}; lower --lr")
        self.stepping = True
        optimizer.step()
        if self.settings.damping:
            draw_to_codes(self.student.graph, self.settings.damping * self.rate * factor)
        optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.stepping = False
        if self.step % 5 == 0 or self.step == self.total:
            self.history.steps.append((self.step, value))
        self.progress(self.step, self.total, value)

    def _plan(self, model: Any) -> Plan:
        """Time a step that changes nothing (compiling on the way), and look at the memory."""
        for _ in range(2):
            began = time.monotonic()
            pixels, teacher = (
                torch.tensor_split(v, self.microbatches.parts) for v in self._batch_at(self.step)
            )
            for x, t in zip(pixels, teacher, strict=True):
                self.fabric.backward(self.microbatches.distil(model, x, t)[0])
            self.module.zero_grad(set_to_none=True)
            seconds = time.monotonic() - began
        # optimizer moments come on top of what is in use now
        moments = 2 * sum(p.numel() * 4 for p in self.student.graph.parameters()) / 2**20
        return Plan(self.total - self.step, seconds, peak_memory_mb() + moments)

    def _save(self, optimizer: Any, began: float) -> None:
        self.history.seconds += time.monotonic() - began
        if not self.ranks.first:
            return
        state = {
            "step": self.step,
            "total": self.total,
            "microbatch": self.microbatches.size,
            "devices": self.ranks.count,
            "model": self.student.graph.state_dict(),
            "optimizer": optimizer.state_dict(),
            "best": self.held.best,
            "best_step": self.history.best_step,
            "history": [list(x) for x in self.history.steps],
            "held_out": [list(x) for x in self.history.held_out],
            "seconds": self.history.seconds,
            "device": self.history.device,
            "metric": None
            if self.microbatches.metric is None
            else self.microbatches.metric.state(),
        }
        write_state(self.state_path, state)

    def _take(self, state: dict[str, Any], optimizer: Any) -> None:
        """Go on from a saved state."""
        try:
            self.student.graph.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            self.step, self.held.best = int(state["step"]), state["best"]
            self.history.best_step = state["best_step"]
            self.history.steps = [(int(a), float(b)) for a, b in state["history"]]
            self.history.held_out = [(int(a), float(b)) for a, b in state["held_out"]]
            self.history.seconds, self.history.device = (
                float(state["seconds"]),
                str(state["device"]),
            )
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise unusable(self.state_path, error) from None
        self.say(f"resuming at step {self.step} of {self.total}")
