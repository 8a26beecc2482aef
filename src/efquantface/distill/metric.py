"""The evaluation-based metric loss: it compares decisions on pairs at the threshold of each FAR.

The anchors are FAR_1..FAR_A. T_a is the similarity above which the share FAR_a of impostor pairs lies.
The soft rank of a pair's similarity s is the share of anchors at which the pair is accepted,

    R(s) = 1/A  sum_a  sigmoid((s - T_a) / t).

It is computed with the student's similarities and thresholds, and with the teacher's. The loss is the
mean of (R_student - R_teacher)^2 over genuine pairs, plus the same over hard impostor pairs. Only pairs
whose decision differs at some anchor contribute. Sources: evaluation-oriented knowledge distillation
(EKD), CVPR 2022; Ef-QuantFace, arXiv 2402.18163. The functions have no state;
:mod:`efquantface.distill.metric_bank` keeps it.
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
    """The soft rank R(s), 0 to 1, of the shape of ``scores``.

    Args:
        scores: cosines of any shape.
        thresholds: (A,), one for each anchor.
        temperature: t, in units of the cosine, above 0.
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
    """The metric loss of pairs (P,). Without pairs to compare it is zero, and so is its gradient.

    Args:
        student, teacher: (P,) cosines of the same pairs.
        same: (P,) True for genuine pairs.
        student_thresholds, teacher_thresholds: (A,) at the same FARs. No gradient passes to them.
        temperature: t. With 0.05 more pairs have a gradient than with the 0.01 of EKD.
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
    """EKD as published (CVPR 2022), on the pairs of a batch: ranks summed over anchors, fixed weights.

    The loss is 0.02 times the mean squared difference over genuine pairs, plus 0.01 times that over the
    2,000 impostor pairs with the largest similarity to the student, with t = 0.01. Without genuine pairs
    the published loss is NaN; here that term is zero.

    Args:
        student, teacher, same, student_thresholds, teacher_thresholds: as for :func:`metric_loss`.
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
    """Mean over chosen pairs; zero if there are none."""
    weights = chosen.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp(min=1)
