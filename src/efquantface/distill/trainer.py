"""Fine-tuning: minutes of distillation on the small set, resumable, the best checkpoint kept."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from efquantface.distill.losses import LOSSES
from efquantface.errors import RunError, TrainingError
from efquantface.models.model import FaceModel
from efquantface.quantize.placement import refresh_biases

_SAVE_EVERY = 60.0  # seconds between checkpoints inside an epoch
_WARMUP_SHARE = 0.05
_WORTH_COMPILING = 60  # steps; compiling costs as much as so many uncompiled steps


@dataclass(frozen=True)
class TrainSettings:
    """How to fine-tune.

    Attributes:
        epochs: passes over the training images; 0 keeps the ranges found without training.
        batch_size: images a step, mirrored at random.
        lr: of weights, in their own quantization steps.
        step_lr: of quantizer steps and zero points, relative.
        weight_decay: AdamW's, on weights.
        clip: largest gradient norm.
        loss: ``cosine`` or ``mse``.
        compile: fuse with ``torch.compile`` where a C++ compiler is found.
    """

    epochs: int = 2
    batch_size: int = 64
    lr: float = 0.04
    step_lr: float = 4e-4
    weight_decay: float = 0.0
    clip: float = 1.0
    loss: str = "cosine"
    seed: int = 0
    compile: bool = True
    device: str = "cpu"
    devices: int = 1


@dataclass
class TrainData:
    """Pixels (N,3,H,W) uint8 and the teacher's embeddings, of the training and held-out images."""

    pixels: npt.NDArray[np.uint8]
    plain: npt.NDArray[np.float32]
    mirrored: npt.NDArray[np.float32]
    held_pixels: npt.NDArray[np.uint8]
    held_teacher: npt.NDArray[np.float32]


@dataclass
class History:
    """What happened: (step, loss) every few steps, held-out loss before training and each epoch."""

    steps: list[tuple[int, float]] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0
    compiled: bool = False
    peak_memory_mb: float = 0.0


@dataclass
class Plan:
    """Said before the first step."""

    steps: int
    seconds_a_step: float
    memory_mb: float

    def describe(self) -> str:
        """One line for the log."""
        minutes = self.steps * self.seconds_a_step / 60
        return (
            f"{self.steps:,} steps of {self.seconds_a_step:.2f} s: about {minutes:.1f} minutes, "
            f"{self.memory_mb / 1024:.1f} GB of memory"
        )


Say = Callable[[str], None]
StepProgress = Callable[[int, int, float], None]


def fine_tune(
    student: FaceModel,
    data: TrainData,
    settings: TrainSettings,
    state_path: Path,
    *,
    resume: bool = False,
    say: Say = lambda _: None,
    progress: StepProgress = lambda *_: None,
) -> History:
    """Train ``student`` in place; it ends with the weights of the best held-out loss.

    The untrained start is among the candidates. The order of images and mirrors depends on seed and
    epoch only, so a resumed run ends with the same weights as an unbroken one.

    Raises:
        TrainingError: a loss or gradient that is not finite.
        RunError: the saved state belongs to another run.
        KeyboardInterrupt: after the state has been saved.
    """
    return _Trainer(student, data, settings, state_path, say, progress).run(resume)


class _Trainer:
    def __init__(
        self,
        student: FaceModel,
        data: TrainData,
        settings: TrainSettings,
        state_path: Path,
        say: Say,
        progress: StepProgress,
    ) -> None:
        self.student, self.data, self.settings = student, data, settings
        self.state_path, self.say, self.progress = state_path, say, progress
        self.history = History()
        self.batch = min(settings.batch_size, len(data.pixels))
        self.steps_an_epoch = max(len(data.pixels) // self.batch, 1)
        self.total = self.steps_an_epoch * settings.epochs
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self.loss = LOSSES[settings.loss]
        torch.manual_seed(settings.seed)
        self.fabric = Fabric(
            accelerator="cuda" if settings.device.startswith("cuda") else "cpu",
            devices=settings.devices,
        )
        self.fabric.launch()

    def run(self, resume: bool) -> History:
        graph = self.student.graph
        optimizer = torch.optim.AdamW(_groups(graph, self.settings), eps=1e-12)
        model = self._prepared(graph, optimizer)
        if resume and self.state_path.is_file():
            self._load(optimizer)
        elif self.settings.epochs:
            self._validate(model)
        if self.step < self.total:
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
        self.history.peak_memory_mb = _peak_memory_mb()
        return self.history

    def _prepared(self, graph: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        """Compiled where possible; said where not."""
        # convolutions and their gradients run nearly twice as fast with channels last
        graph.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        wanted = self.settings.compile and self.settings.epochs > 0
        if wanted and self.settings.device == "cpu" and not has_compiler():
            self.say("no C++ compiler found: training without torch.compile, several times slower")
            wanted = False
        if wanted and self.total < _WORTH_COMPILING:
            self.say(f"{self.total} steps only: training without torch.compile")
            wanted = False
        self.history.compiled = wanted
        if wanted:
            self.say("compiling the training step (one to three minutes, the first time)")
        graph.to(self.fabric.device)
        module = self._compiled(graph) if wanted else graph
        return self.fabric.setup(module, optimizer, _reapply_compile=False)[0]

    def _compiled(self, graph: nn.Module) -> Any:
        """The graph compiled and tried on one batch; the graph itself where compiling fails."""
        compiled: Any = torch.compile(graph, dynamic=False)
        try:
            pixels, teacher = self._batch_at(0)
            torch.autograd.backward(self.loss(compiled(pixels), teacher))
        except Exception as error:  # compilers fail in many ways, and none of them is fatal here
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.say(f"torch.compile failed ({reason}): training without it, several times slower")
            self.history.compiled = False
            return graph
        finally:
            graph.zero_grad(set_to_none=True)
        return compiled

    def _batch_at(self, step: int) -> tuple[Tensor, Tensor]:
        """Pixels and teacher embeddings of a step; a function of seed, epoch and position."""
        epoch, position = divmod(step, self.steps_an_epoch)
        rng = np.random.default_rng([self.settings.seed, 30, epoch])
        order = rng.permutation(len(self.data.pixels))
        flips = rng.random(len(self.data.pixels)) < 0.5
        index = order[position * self.batch : (position + 1) * self.batch]
        index = index[self.fabric.global_rank :: self.fabric.world_size]
        flip = flips[index]
        pixels = self.data.pixels[index].copy()
        pixels[flip] = pixels[flip][..., ::-1]
        teacher = np.where(flip[:, None], self.data.mirrored[index], self.data.plain[index])
        device = self.fabric.device
        return (
            _input(pixels, device),
            torch.from_numpy(teacher.astype(np.float32)).to(device),
        )

    def _train_step(self, model: Any, optimizer: Any) -> None:
        factor = _schedule(self.step, self.total)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        pixels, teacher = self._batch_at(self.step)
        loss = self.loss(model(pixels), teacher)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(f"the loss is {value} at step {self.step}; try a smaller --lr")
        self.fabric.backward(loss)
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
        for start in range(0, len(self.data.held_pixels), self.batch):
            pixels = self.data.held_pixels[start : start + self.batch]
            missing = self.batch - len(pixels)
            if missing:  # one compiled shape: fill up, and leave the filling out of the loss
                pixels = np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])
            teacher = torch.from_numpy(self.data.held_teacher[start : start + self.batch])
            # gradients stay on: without them the graph would be compiled a second time
            out = model(_input(pixels, self.fabric.device)).detach()
            kept = out[: self.batch - missing]
            total += float(self.loss(kept, teacher.to(kept.device))) * len(kept)
            count += len(kept)
        value = total / count
        if not math.isfinite(value):
            raise TrainingError(f"the held-out loss is {value} after step {self.step}")
        self.history.held_out.append((self.step, value))
        if value <= min(v for _, v in self.history.held_out):
            self.history.best_step = self.step
            state = self.student.graph.state_dict()
            self.best = {key: tensor.detach().cpu().clone() for key, tensor in state.items()}
        self.say(f"step {self.step}: held-out {self.settings.loss} loss {value:.5f}")

    def _plan(self, model: Any) -> Plan:
        """Time a step that changes nothing (compiling on the way), and look at the memory."""
        for _ in range(2):
            began = time.monotonic()
            pixels, teacher = self._batch_at(self.step)
            self.fabric.backward(self.loss(model(pixels), teacher))
            self.student.graph.zero_grad(set_to_none=True)
            seconds = time.monotonic() - began
        # optimizer moments come on top of what is in use now
        moments = 2 * sum(p.numel() * 4 for p in self.student.graph.parameters()) / 2**20
        return Plan(self.total - self.step, seconds, _peak_memory_mb() + moments)

    def _save(self, optimizer: Any, began: float) -> None:
        self.history.seconds += time.monotonic() - began
        state = {
            "step": self.step,
            "total": self.total,
            "model": self.student.graph.state_dict(),
            "optimizer": optimizer.state_dict(),
            "best": self.best,
            "best_step": self.history.best_step,
            "history": [list(x) for x in self.history.steps],
            "held_out": [list(x) for x in self.history.held_out],
            "seconds": self.history.seconds,
        }
        temporary = self.state_path.with_name(self.state_path.name + ".partial")
        torch.save(state, temporary)
        os.replace(temporary, self.state_path)

    def _load(self, optimizer: Any) -> None:
        try:
            state = torch.load(self.state_path, weights_only=True)
            if state["total"] != self.total:
                raise RunError(f"{self.state_path}: was saved by a run of {state['total']} steps")
            self.student.graph.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, KeyError, ValueError, EOFError, OSError, UnpicklingError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"{self.state_path}: cannot be resumed from ({reason})") from None
        self.step, self.best = state["step"], state["best"]
        self.history.best_step = state["best_step"]
        self.history.steps = [(int(a), float(b)) for a, b in state["history"]]
        self.history.held_out = [(int(a), float(b)) for a, b in state["held_out"]]
        self.history.seconds = state["seconds"]
        self.say(f"resuming at step {self.step} of {self.total}")


def has_compiler() -> bool:
    """Whether ``torch.compile`` finds a C++ compiler for the CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name)


def _groups(graph: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """Weights with their learning rate and decay; steps and zero points with theirs and none."""
    weights, biases, steps = [], [], []
    for name, parameter in graph.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.endswith(("log_step", ".zero")):
            steps.append(parameter)
        elif name.endswith("latent_bias"):
            biases.append(parameter)
        else:
            weights.append(parameter)
    return [
        {"params": weights, "base_lr": settings.lr, "weight_decay": settings.weight_decay},
        # biases are in units of the channel's largest weight, 127 steps
        {"params": biases, "base_lr": settings.lr / 127, "weight_decay": 0.0},
        {"params": steps, "base_lr": settings.step_lr, "weight_decay": 0.0},
    ]


def _schedule(step: int, total: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    warmup = max(int(total * _WARMUP_SHARE), 1)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def _input(pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """Float pixels on the device, channels last."""
    tensor = torch.from_numpy(pixels).to(device).float()
    return tensor.contiguous(memory_format=torch.channels_last)


def _peak_memory_mb() -> float:
    """The process's peak so far; where the system does not tell it, what is in use now."""
    if sys.platform.startswith("linux"):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    info = psutil.Process().memory_info()
    return float(getattr(info, "peak_wset", 0) or info.rss) / 2**20
