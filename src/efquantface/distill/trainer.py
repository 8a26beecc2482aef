"""Fine-tuning: minutes of distillation on the small set, resumable, the best checkpoint kept."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from efquantface.data.strangers import strangers
from efquantface.distill.batches import Batches
from efquantface.distill.layerwise import LayerDistillation
from efquantface.distill.losses import LOSSES
from efquantface.distill.memory import COMPILER_MB, microbatch_size, peak_memory_mb, saved_bytes
from efquantface.distill.metric_bank import MetricBank, fill_bank
from efquantface.distill.microbatch import Microbatches
from efquantface.distill.optimizer import parameter_groups, rate_for, schedule
from efquantface.distill.settings import History, Plan, TrainData, TrainSettings
from efquantface.distill.state import read_state, unusable, write_state
from efquantface.errors import TrainingError
from efquantface.graph.model import FaceModel
from efquantface.quantize.fused import fused
from efquantface.quantize.placement import refresh_biases

_SAVE_EVERY = 60.0  # seconds between checkpoints inside an epoch
_OTHER_LOSSES_RATE = 4e-4
_WORTH_COMPILING = 60  # steps; compiling costs as much as so many uncompiled steps

Say = Callable[[str], None]
StepProgress = Callable[[int, int, float], None]
Validated = Callable[[int, float], None]


def fine_tune(
    student: FaceModel,
    data: TrainData,
    settings: TrainSettings,
    state_path: Path,
    *,
    teacher: FaceModel | None = None,
    seed: int = 0,
    device: str = "cpu",
    resume: bool = False,
    say: Say = lambda _: None,
    progress: StepProgress = lambda *_: None,
    validated: Validated = lambda *_: None,
) -> History:
    """Train ``student`` in place; it ends with the weights of the best held-out loss.

    The untrained start is among the candidates, except where no distillation is asked for: then the
    last weights are kept. The order of images and mirrors depends on seed and epoch only, so a
    resumed run ends with the same weights as an unbroken one. ``teacher`` is the float network that
    the student was quantized from; only ``layer_weight`` needs it. ``progress`` is called with step,
    steps and loss, ``validated`` with step and held-out loss.

    Raises:
        TrainingError: a loss or gradient that is not finite.
        RunError: the saved state belongs to another run.
        KeyboardInterrupt: after the state has been saved.
    """
    module: nn.Module = fused(student.graph)
    if settings.layer_weight and settings.epochs:
        if teacher is None:
            raise TrainingError("distilling layers needs the float network the student came from")
        module = LayerDistillation(student.graph, copy.deepcopy(teacher.graph))
        module.student = fused(module.student)
    trainer = _Trainer(student, module, data, settings, seed, device, state_path, say, progress)
    trainer.validated = validated
    return trainer.run(resume)


class _Trainer:
    def __init__(
        self,
        student: FaceModel,
        module: nn.Module,
        data: TrainData,
        settings: TrainSettings,
        seed: int,
        device: str,
        state_path: Path,
        say: Say,
        progress: StepProgress,
    ) -> None:
        self.student, self.module = student, module
        self.data, self.settings = data, settings
        self.state_path, self.say, self.progress = state_path, say, progress
        self.validated: Validated = lambda *_: None
        self.history = History()
        self.batches = Batches(data, settings, seed, say)
        self.batch, self.steps_an_epoch = self.batches.size, self.batches.an_epoch
        self.total = self.steps_an_epoch * settings.epochs
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self.held_loss = LOSSES["cosine" if settings.loss == "none" else settings.loss]
        self.on_cpu = device == "cpu"
        torch.manual_seed(seed)
        self.fabric = Fabric(accelerator="cpu" if self.on_cpu else "cuda", devices=1)
        self.fabric.launch()

    def run(self, resume: bool) -> History:
        graph = self.student.graph
        found = resume and self.state_path.is_file()
        state = read_state(self.state_path, self.total) if found else None
        # the same microbatches again, or sums would round differently
        size = self._fitting_size() if state is None else state["microbatch"]
        self.microbatches = Microbatches(self.settings, self.fabric, size)
        optimizer = torch.optim.AdamW(parameter_groups(graph, self.settings), eps=1e-12)
        model = self._prepared(optimizer)
        if state is None:
            self._validate(model)
        else:
            self._take(state, optimizer)
        if self.settings.metric != "none" and self.step < self.total:
            self.microbatches.metric = self._metric_bank(model)
            if state is not None:
                self.microbatches.metric.restore(state["metric"])
        if self.step < self.total:
            device = self.fabric.device
            cuda = device.type == "cuda"
            self.history.device = torch.cuda.get_device_name(device) if cuda else "cpu"
            self._set_rate(optimizer)
            self.say(self._plan(model).describe())
        began, saved = time.monotonic(), time.monotonic()
        try:
            while self.step < self.total:
                self._train_step(model, optimizer)
                if self.step % self.steps_an_epoch == 0:
                    self._validate(model)
                    self._save(optimizer, began)
                    began = saved = time.monotonic()
                elif time.monotonic() - saved > _SAVE_EVERY:
                    self._save(optimizer, began)
                    began = saved = time.monotonic()
        except KeyboardInterrupt:
            self._save(optimizer, began)
            self.say(f"stopped at step {self.step} of {self.total}; go on with --resume")
            raise
        if self.best:
            graph.load_state_dict(self.best)
        refresh_biases(graph)
        self.history.peak_memory_mb = peak_memory_mb()
        return self.history

    def _prepared(self, optimizer: torch.optim.Optimizer) -> Any:
        """Compiled where possible; said where not."""
        # convolutions and their gradients run nearly twice as fast with channels last
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        wanted = self._may_compile()
        if wanted and self.total < _WORTH_COMPILING:
            self.say(f"{self.total} steps only: training without torch.compile")
            wanted = False
        self.history.compiled = wanted
        if wanted:
            self.say("compiling the training step (one to three minutes, the first time)")
        self.module.to(self.fabric.device)
        module = self._compiled() if wanted else self.module
        return self.fabric.setup(module, optimizer, _reapply_compile=False)[0]

    def _may_compile(self) -> bool:
        """Where not told, on CUDA: the CPU has kernels of our own, which compiling only slows."""
        wanted = self.settings.compile
        if wanted is None:
            wanted = not self.on_cpu
        return wanted and self.settings.epochs > 0

    def _compiled(self) -> Any:
        """The module compiled and tried on one batch; itself where compiling fails."""
        compiled: Any = torch.compile(self.module, dynamic=False)
        try:
            pixels, teacher = self._batch_at(0)
            size = self.microbatches.size
            loss, _ = self.microbatches.distil(compiled, pixels[:size], teacher[:size])
            torch.autograd.backward(loss)
        except Exception as error:  # compilers fail in many ways, and none of them is fatal here
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.say(f"torch.compile failed ({reason}): training without it")
            self.history.compiled = False
            return self.module
        finally:
            self.module.zero_grad(set_to_none=True)
        return compiled

    def _metric_bank(self, model: Any) -> MetricBank:
        """The metric loss, with the student's present embeddings."""

        def embed(index: npt.NDArray[np.int64]) -> Tensor:
            return self.microbatches.embed(
                model, _input(self.data.pixels[index], self.fabric.device)
            )

        return fill_bank(embed, self.data, self.batches, self.settings.metric, self.say)

    def _fitting_size(self) -> int:
        """Images of a microbatch, so that a step stays below the memory it may take."""
        if not self.settings.epochs:
            return self.batch
        pixels = _input(self.data.pixels[:4], torch.device("cpu"))
        an_image = saved_bytes(self.module.cpu(), pixels)
        weights = sum(p.numel() for p in self.student.graph.parameters())
        limit = self.settings.memory_gb * 2**10
        compiler = COMPILER_MB if self._may_compile() else 0.0
        size, expected = microbatch_size(self.batch, an_image, weights, limit, compiler)
        cut = "" if size == self.batch else f", in {self.batch // size} microbatches of {size}"
        self.say(
            f"a batch of {self.batch} images{cut} takes about {expected / 2**10:.1f} GB of memory "
            f"({an_image / 2**20:.0f} MB an image)"
        )
        return size

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
        for group in optimizer.param_groups:
            if group["base_lr"] is None:
                group["base_lr"] = rate

    def _mine(self, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """This process's share of a step's images, and which of them are mirrored."""
        index, flip = self.batches.at(step)
        share = slice(self.fabric.global_rank, None, self.fabric.world_size)
        return index[share], flip[share]

    def _batch_at(self, step: int) -> tuple[Tensor, Tensor]:
        """Pixels and teacher embeddings of a step; a function of seed, epoch and position."""
        index, flip = self._mine(step)
        pixels = self.data.pixels[index].copy()
        pixels[flip] = pixels[flip][..., ::-1]
        teacher = np.where(flip[:, None], self.data.mirrored[index], self.data.plain[index])
        device = self.fabric.device
        return _input(pixels, device), torch.from_numpy(teacher.astype(np.float32)).to(device)

    def _train_step(self, model: Any, optimizer: Any) -> None:
        factor = schedule(self.step, self.total)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        identities = None
        if self.microbatches.metric is not None:
            identities = torch.from_numpy(self.batches.identities()[self._mine(self.step)[0]])
        self.microbatches.layer_weight = self.settings.layer_weight * (1 - self.step / self.total)
        value = self.microbatches.backward(model, *self._batch_at(self.step), identities)
        if not math.isfinite(value):
            raise TrainingError(f"the loss is {value} at step {self.step}; try a smaller --lr")
        norm = nn.utils.clip_grad_norm_(self.student.graph.parameters(), self.settings.clip)
        if not torch.isfinite(norm):
            raise TrainingError(f"a gradient is not finite at step {self.step}; lower --lr")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.step % 5 == 0 or self.step == self.total:
            self.history.steps.append((self.step, value))
        self.progress(self.step, self.total, value)

    def _validate(self, model: Any) -> None:
        """Held-out loss with the exact biases of the file; keeps the best weights."""
        refresh_biases(self.student.graph)
        total, count = 0.0, 0
        for start in range(0, len(self.data.held_pixels), self.microbatches.size):
            pixels = self.data.held_pixels[start : start + self.microbatches.size]
            missing = self.microbatches.size - len(pixels)
            if missing:  # one compiled shape: fill up, and leave the filling out of the loss
                pixels = np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])
            teacher = torch.from_numpy(
                self.data.held_teacher[start : start + self.microbatches.size]
            )
            # a compiled graph keeps its gradients: without them it would be compiled a second time
            with torch.set_grad_enabled(self.history.compiled):
                out = model(_input(pixels, self.fabric.device))
            embedding = out[0] if self.settings.layer_weight else out
            kept = embedding.detach()[: self.microbatches.size - missing]
            total += float(self.held_loss(kept, teacher.to(kept.device))) * len(kept)
            count += len(kept)
            if not self.settings.epochs:
                self.progress(count, len(self.data.held_pixels), total / count)
        value = total / count
        if not math.isfinite(value):
            raise TrainingError(f"the held-out loss is {value} after step {self.step}")
        self.history.held_out.append((self.step, value))
        self.validated(self.step, value)
        # a metric loss alone leaves the embedding free to turn away from the teacher's
        alone = self.settings.loss == "none"
        if alone or value <= min(v for _, v in self.history.held_out):
            self.history.best_step = self.step
            state = self.student.graph.state_dict()
            self.best = {key: tensor.detach().cpu().clone() for key, tensor in state.items()}
        name = "cosine" if self.settings.loss == "none" else self.settings.loss
        self.say(f"step {self.step}: held-out {name} loss {value:.5f}")

    def _plan(self, model: Any) -> Plan:
        """Time a step that changes nothing (compiling on the way), and look at the memory."""
        for _ in range(2):
            began = time.monotonic()
            pixels, teacher = (
                torch.split(v, self.microbatches.size) for v in self._batch_at(self.step)
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
        state = {
            "step": self.step,
            "total": self.total,
            "microbatch": self.microbatches.size,
            "model": self.student.graph.state_dict(),
            "optimizer": optimizer.state_dict(),
            "best": self.best,
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
            self.step, self.best = int(state["step"]), state["best"]
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


def _input(pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """Float pixels on the device, channels last."""
    tensor = torch.from_numpy(pixels).to(device).float()
    return tensor.contiguous(memory_format=torch.channels_last)
