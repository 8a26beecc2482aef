"""Prepares the student's module for training: on its device, compiled if that is worth it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from efquantface.distill.memory import COMPILER_MB, microbatch_size, saved_bytes
from efquantface.distill.pixels import as_input
from efquantface.distill.ranks import Ranks
from efquantface.distill.settings import TrainData, TrainSettings

_WORTH_COMPILING = 60  # steps; compiling takes as long as this many uncompiled steps


class Prepared:
    """How a student is trained on this machine.

    Attributes:
        compiled: whether the module is compiled; known after :meth:`module_on`.
    """

    def __init__(
        self, module: nn.Module, settings: TrainSettings, ranks: Ranks, say: Callable[[str], None]
    ) -> None:
        self.module, self.settings, self.ranks, self.say = module, settings, ranks, say
        self.compiled = False

    def may_compile(self) -> bool:
        """Whether to compile: by default on CUDA only, since compiling slows our CPU kernels."""
        if self.settings.layer_weight and not self.ranks.alone:
            return False  # processes exchange sums within a step
        wanted = self.settings.compile
        if wanted is None:
            wanted = self.ranks.device != "cpu"
        return wanted and self.settings.epochs > 0

    def microbatch(self, batch: int, weights: int, data: TrainData) -> int:
        """The number of images of a microbatch, so that a step stays below the memory limit.

        Args:
            batch: images a step, of this process.
            weights: number of trained values.
            data: training images, of which four are passed.
        """
        if not self.settings.epochs:
            return batch
        pixels = as_input(data.pixels[:4], torch.device("cpu"))
        an_image = saved_bytes(self.module.cpu(), pixels)
        limit = self.settings.memory_gb * 2**10
        compiler = COMPILER_MB if self.may_compile() else 0.0
        size, expected = microbatch_size(batch, an_image, weights, limit, compiler)
        cut = "" if size == batch else f", in {batch // size} microbatches of {size}"
        self.say(
            f"a batch of {batch} images{cut} takes about {expected / 2**10:.1f} GB of memory "
            f"({an_image / 2**20:.0f} MB an image)"
        )
        return size

    def leave_out_unreached(self, data: TrainData) -> None:
        """Train no parameters that no loss reaches: processes would wait for their gradients."""
        found = self.module(as_input(data.pixels[:2], torch.device("cpu")))
        parts = found if isinstance(found, tuple) else (found,)
        torch.autograd.backward([part.sum() for part in parts if part.requires_grad])
        for parameter in self.module.parameters():
            if parameter.grad is None:
                parameter.requires_grad_(False)
        self.module.zero_grad(set_to_none=True)

    def module_on(self, device: torch.device, steps: int, trial: Callable[[Any], None]) -> Any:
        """The module on ``device``, compiled if possible; the log says if not.

        Args:
            device: where it is trained.
            steps: of the training.
            trial: passes one microbatch forward and backward through a compiled module.
        """
        # convolutions and their gradients run nearly twice as fast with channels last
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        wanted = self.may_compile()
        if wanted and steps < _WORTH_COMPILING:
            self.say(f"{steps} steps only: training without torch.compile")
            wanted = False
        self.compiled = wanted
        if wanted:
            self.say("compiling the training step (one to three minutes, the first time)")
        self.module.to(device)
        return self._compiled(trial) if wanted else self.module

    def _compiled(self, trial: Callable[[Any], None]) -> Any:
        """The module, compiled and tried on one microbatch; not compiled if that fails."""
        compiled: Any = torch.compile(self.module, dynamic=False)
        try:
            trial(compiled)
        except Exception as error:  # compilers raise many kinds; training works without them
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.say(f"torch.compile failed ({reason}): training without it")
            self.compiled = False
            return self.module
        finally:
            self.module.zero_grad(set_to_none=True)
        return compiled
