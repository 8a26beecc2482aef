"""The evaluation-based metric loss: a batch's pairs, seen through the thresholds of each FPR.

For anchors FPR_1..FPR_A let T_a be the similarity above which the share FPR_a of impostor pairs
lies. The soft rank of a pair's similarity s counts the anchors at which it is accepted,

    R(s) = 1/A  sum_a  sigmoid((s - T_a) / t),

once with the student's similarities and thresholds and once with the teacher's. The loss is the mean of
(R_student - R_teacher)^2 over genuine pairs plus the same over hard negatives: only pairs whose decision
differs at some anchor carry it. (Evaluation-oriented knowledge distillation, CVPR 2022; Ef-QuantFace,
arXiv 2402.18163.) All functions are pure; :mod:`efquantface.distill.metric_bank` keeps the state.
"""

from __future__ import annotations

import torch
from torch import Tensor

TEMPERATURE = 0.05
EKD_TEMPERATURE = 0.01
EKD_HARDEST = 2000
EKD_POSITIVE, EKD_NEGATIVE = 0.02, 0.01
_REACH = 3.0  # temperatures below the lowest threshold at which a pair still counts as hard


def soft_rank(scores: Tensor, thresholds: Tensor, temperature: float) -> Tensor:
    """R(s) in 0..1 of similarities of any shape.

    Args:
        thresholds: (A,) one an anchor.
        temperature: t, in units of the cosine.
    """
    return torch.sigmoid((scores[..., None] - thresholds) / temperature).mean(dim=-1)


def metric_loss(
    student: Tensor,
    teacher: Tensor,
    same: Tensor,
    student_thresholds: Tensor,
    teacher_thresholds: Tensor,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """The loss of pairs (P,); zero, with a gradient of zero, where nothing can be compared.

    Args:
        student, teacher: (P,) cosines of the same pairs.
        same: (P,) True for genuine pairs.
        student_thresholds, teacher_thresholds: (A,) at the same FPRs; those of the student are
            constants here.
        temperature: t; 0.05 reaches pairs that the 0.01 of EKD leaves without a gradient.
    """
    difference = soft_rank(student, student_thresholds.detach(), temperature) - soft_rank(
        teacher, teacher_thresholds, temperature
    )
    margin = _REACH * temperature
    hard = (student.detach() > student_thresholds.min() - margin) | (
        teacher > teacher_thresholds.min() - margin
    )
    squared = difference.square()
    return _mean(squared, same) + _mean(squared, ~same & hard)


def ekd_loss(
    student: Tensor,
    teacher: Tensor,
    same: Tensor,
    student_thresholds: Tensor,
    teacher_thresholds: Tensor,
) -> Tensor:
    """EKD as published, as far as a batch allows it: ranks summed over anchors, fixed weights.

    0.02 times the mean squared difference over genuine pairs plus 0.01 times that over the 2,000
    hardest negatives (by the student's similarity), t = 0.01. A batch without genuine pairs is NaN in
    the published form and contributes nothing here.
    """
    count = len(student_thresholds)
    difference = count * (
        soft_rank(student, student_thresholds.detach(), EKD_TEMPERATURE)
        - soft_rank(teacher, teacher_thresholds, EKD_TEMPERATURE)
    )
    squared = difference.square()
    negatives = torch.where(same, torch.full_like(student, -torch.inf), student.detach())
    hardest = torch.zeros_like(same)
    hardest[negatives.topk(min(EKD_HARDEST, len(student))).indices] = True
    return EKD_POSITIVE * _mean(squared, same) + EKD_NEGATIVE * _mean(squared, ~same & hardest)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean over chosen pairs; zero where there is none."""
    weights = chosen.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp(min=1)
