"""What fine-tuning is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from efquantface.distill.bank import TeacherBank


class TrainSettings(BaseModel):
    """How to fine-tune; the recipe's ``training:``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(
        2, ge=0, le=1000, description="passes over the faces; 0 only sets ranges and rounds"
    )
    batch_size: int = Field(32, ge=2, le=4096, description="images a training step")
    lr: float | None = Field(
        None,
        gt=0,
        description="learning rate, a share of each channel's largest weight; not told: chosen by "
        "the held-out loss of the untrained student",
    )
    range_lr: float = Field(
        4e-4, gt=0, description="learning rate of 8-bit quantizers' ranges, relative"
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's, on weights")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    loss: Literal["cosine", "mse", "none"] = Field(
        "cosine", description="distance of embeddings: cosine, mse (QuantFace's), or none"
    )
    metric: Literal["none", "ours", "ekd"] = Field(
        "none",
        description="evaluation-based metric loss beside it: ours (pairs seen through the thresholds "
        "of each FPR) or ekd (as published)",
    )
    metric_weight: float = Field(1.0, gt=0, description="weight of the metric loss ours")
    images_per_identity: int = Field(
        4, ge=2, description="images of an identity together in a batch, with a metric loss"
    )
    layer_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the relative squared error of residual blocks' outputs, fading out "
        "until the end",
    )
    memory_gb: float = Field(
        8.0, gt=0, description="training stays below it, in microbatches where it must"
    )
    compile: bool | None = Field(
        None, description="fuse with torch.compile; not told: on CUDA only"
    )


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
