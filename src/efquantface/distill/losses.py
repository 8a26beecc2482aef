"""Distillation losses: functions of the student's and the teacher's embeddings (B,D)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean(1 - cos(s, t))``: half the squared distance of the normalized embeddings, 0 to 2.

    The loss does not depend on the embedding's length; the pipeline restores it in the last layer.
    """
    return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()


def mse_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean((s - t)^2)`` of embeddings that are not normalized (QuantFace, arXiv 2206.10526, eq. 4)."""
    return F.mse_loss(student, teacher)


def no_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Zero, for training with a metric loss only."""
    return student.sum() * 0


LOSSES: dict[str, Loss] = {"cosine": cosine_loss, "mse": mse_loss, "none": no_loss}
METRICS = ("none", "ours", "ekd")
