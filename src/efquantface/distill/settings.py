"""What fine-tuning is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

if TYPE_CHECKING:  # recipes hold these settings, and are read before anything computes
    import numpy as np
    import numpy.typing as npt

    from efquantface.contract import FaceContract
    from efquantface.distill.bank import TeacherBank
    from efquantface.interfaces import Rows


_TUNING: dict[str, JsonValue] = {"group": "Fine-tuning"}


class TrainSettings(BaseModel):
    """How to fine-tune; the recipe's ``training:``. Flags and their groups come from the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(
        2,
        ge=0,
        le=1000,
        description="passes over the faces; 0 only sets ranges and rounds",
        json_schema_extra={"shown": "2, and 12 for a network that is pruned"},
    )
    batch_size: int = Field(
        32, ge=2, le=4096, description="images a training step", json_schema_extra=_TUNING
    )
    lr: float | None = Field(
        None,
        gt=0,
        description="learning rate, a share of each channel's largest weight",
        json_schema_extra={**_TUNING, "shown": "by the held-out loss of the untrained student"},
    )
    range_lr: float = Field(
        4e-4,
        gt=0,
        description="learning rate of 8-bit quantizers' ranges, relative",
        json_schema_extra=_TUNING,
    )
    weight_decay: float = Field(
        0.0, ge=0, description="AdamW's, on weights", json_schema_extra=_TUNING
    )
    clip: float = Field(1.0, gt=0, description="largest gradient norm", json_schema_extra=_TUNING)
    loss: Literal["cosine", "mse", "none"] = Field(
        "cosine",
        description="distance of embeddings: cosine, mse (QuantFace's, of the raw ones) or none",
        json_schema_extra=_TUNING,
    )
    metric: Literal["none", "ours", "ekd"] = Field(
        "none",
        description="evaluation-based metric loss beside it: none, ours (pairs seen through the "
        "thresholds of each FAR) or ekd (as published)",
        json_schema_extra=_TUNING,
    )
    metric_weight: float = Field(
        1.0, gt=0, description="weight of the metric loss ours", json_schema_extra=_TUNING
    )
    images_per_identity: int = Field(
        4,
        ge=2,
        description="images of an identity together in a batch, with a metric loss",
        json_schema_extra=_TUNING,
    )
    layer_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the relative squared error of residual blocks' outputs, fading out "
        "until the end",
        json_schema_extra=_TUNING,
    )
    damping: float = Field(
        0.1,
        ge=0,
        le=1,
        description="how strongly weights are drawn to their codes, as a share of the learning rate; "
        "0 lets them jump between two",
        json_schema_extra=_TUNING,
    )
    memory_gb: float = Field(
        8.0,
        gt=0,
        description="training stays below it, in microbatches where it must",
        json_schema_extra=_TUNING,
    )
    compile: bool | None = Field(
        None,
        description="fuse with torch.compile",
        json_schema_extra={**_TUNING, "shown": "on CUDA only"},
    )


@dataclass
class TrainData:
    """Pixels (N,3,H,W) uint8 and the teacher's embeddings, of the training and held-out images.

    They are looked up by index: arrays, or views of what lies on the disk.

    Attributes:
        identities: (N,) of the training images; only a metric loss asks for them.
    """

    pixels: Rows
    plain: Rows
    mirrored: Rows
    held_pixels: Rows
    held_teacher: Rows
    identities: npt.NDArray[np.int64] | None = None

    @classmethod
    def of(
        cls,
        images: Rows,
        contract: FaceContract,
        bank: TeacherBank,
        train: npt.NDArray[np.int64],
        held: npt.NDArray[np.int64],
        identities: npt.NDArray[np.int64] | None = None,
    ) -> TrainData:
        """From all crops (N,H,W,3), their bank and identities (N,), and which images are whose."""
        from efquantface.data.views import Taken

        return cls(
            Taken(images, train, contract.pixels),
            Taken(bank.plain, train),
            Taken(bank.mirrored, train),
            Taken(images, held, contract.pixels),
            Taken(bank.plain, held),
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
