"""Losses that pull a student's embeddings to its teacher's. Pure functions of two tensors (B,D)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean(1 - cos(s, t))``, half the squared distance of the normalized embeddings.

    The embedding's length is left free; the pipeline restores its scale in the last layer.
    """
    return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()


def mse_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean((s - t)^2)`` of the embeddings as they are (QuantFace, arXiv 2206.10526, eq. 4)."""
    return F.mse_loss(student, teacher)


def no_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Zero, for training by a metric loss alone."""
    return student.sum() * 0


LOSSES: dict[str, Loss] = {"cosine": cosine_loss, "mse": mse_loss, "none": no_loss}
METRICS = ("none", "ours", "ekd")
