"""Learning rates: by parameter, by the start's loss and by step."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from efquantface.distill.settings import TrainSettings

_WARMUP_SHARE = 0.05
_RATE = 0.0132
_MOST = 0.004  # activations of four bits leave gradients too rough for more
_BATCH = 64


def rate_for(loss: float, batch: int = _BATCH) -> float:
    """Learning rate for a student that starts with this held-out cosine loss.

    The rate is ``0.0132 sqrt(loss)``, at most 0.004, for 64 images a step, and proportional to the
    batch. The closer the start is to the teacher, the less a weight has to move
    (docs/experiments/2026-11-28-damping.md).

    Args:
        loss: mean 1 - cosine to the teacher, divided by that of strangers.
        batch: images a step.
    """
    return min(_RATE * math.sqrt(max(loss, 0.0)), _MOST) * batch / _BATCH


def parameter_groups(graph: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """Groups for the optimizer: weights, biases, and scales and zero points by bits.

    Weights and biases have ``base_lr`` None; their rate is set when the start's loss is known.

    With fewer codes a quantizer's scale may move faster. Scales have a rate larger by
    ``sqrt(2^(8 - bits))``, as in LSQ, which scales gradients by the root of the number of codes (Esser
    et al. 2020, section 2.2).

    Parameters are sorted by name, so that a saved state fits any graph with the same names.

    Args:
        graph: the student.
        settings: of the training.
    """
    weights, biases = [], []
    scales: dict[int, list[nn.Parameter]] = {}
    for _, module in sorted(graph.named_modules(), key=lambda named: named[0]):
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if name in ("log_scale", "zero_share"):
                scales.setdefault(int(module.bits), []).append(parameter)
            elif name == "latent_bias":
                biases.append(parameter)
            else:
                weights.append(parameter)
    return [
        {"params": weights, "base_lr": None, "weight_decay": settings.weight_decay},
        {"params": biases, "base_lr": None, "weight_decay": 0.0},
        *(
            {
                "params": parameters,
                "base_lr": settings.range_lr * 2 ** ((8 - bits) / 2),
                "weight_decay": 0.0,
            }
            for bits, parameters in sorted(scales.items())
        ),
    ]


def schedule(step: int, total: int) -> float:
    """Factor of the learning rate, 0 to 1, at a step: linear warm-up, then a cosine to zero."""
    warmup = max(int(total * _WARMUP_SHARE), 1)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
