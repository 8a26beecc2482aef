"""What fine-tuning is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from efquantface.distill.bank import TeacherBank


@dataclass(frozen=True)
class TrainSettings:
    """How to fine-tune.

    Attributes:
        epochs: passes over the training images; 0 keeps the ranges found without training.
        batch_size: images a step, mirrored at random.
        lr: of weights and biases, as a share of their channel's largest weight; None chooses it from
            the held-out loss of the untrained student (:func:`optimizer.rate_for`).
        step_lr: of 8-bit quantizers' steps and zero points, relative.
        weight_decay: AdamW's, on weights.
        clip: largest gradient norm.
        loss: ``cosine`` or ``mse`` of the embeddings, or ``none``.
        metric: the evaluation-based metric loss beside it: ``none``, ``ours`` or ``ekd``.
        metric_weight: of ours; EKD's own weights are part of it.
        images_each: images of an identity that stand together in a batch, with a metric loss.
        layer_weight: of the relative squared error of the residual blocks' outputs, which is added
            to the loss at the start and fades out linearly until the end.
        memory_gb: the process should not take more; a batch passes in parts where it would.
        compile: fuse with ``torch.compile``; where None, on CUDA only: the CPU has kernels of ours.
    """

    epochs: int = 2
    batch_size: int = 32
    lr: float | None = None
    step_lr: float = 4e-4
    weight_decay: float = 0.0
    clip: float = 1.0
    loss: str = "cosine"
    metric: str = "none"
    metric_weight: float = 1.0
    images_each: int = 4
    layer_weight: float = 0.0
    memory_gb: float = 8.0
    seed: int = 0
    compile: bool | None = None
    device: str = "cpu"
    devices: int = 1


@dataclass
class TrainData:
    """Pixels (N,3,H,W) uint8 and the teacher's embeddings, of the training and held-out images.

    Attributes:
        identities: (N,) of the training images; only a metric loss asks for them.
    """

    pixels: npt.NDArray[np.uint8]
    plain: npt.NDArray[np.float32]
    mirrored: npt.NDArray[np.float32]
    held_pixels: npt.NDArray[np.uint8]
    held_teacher: npt.NDArray[np.float32]
    identities: npt.NDArray[np.int64] | None = None

    @classmethod
    def of(
        cls,
        pixels: npt.NDArray[np.uint8],
        bank: TeacherBank,
        train: npt.NDArray[np.int64],
        held: npt.NDArray[np.int64],
        identities: npt.NDArray[np.int64] | None = None,
    ) -> TrainData:
        """From all pixels (N,3,H,W), their bank and identities (N,), and which images are whose."""
        return cls(
            pixels[train],
            bank.plain[train],
            bank.mirrored[train],
            pixels[held],
            bank.plain[held],
            None if identities is None else identities[train],
        )


@dataclass
class History:
    """What happened: (step, loss) every few steps, held-out loss before training and each epoch.

    Attributes:
        device: ``cpu``, or the name of the GPU that the last part of the training ran on.
    """

    steps: list[tuple[int, float]] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0
    compiled: bool = False
    peak_memory_mb: float = 0.0
    device: str = "cpu"


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
