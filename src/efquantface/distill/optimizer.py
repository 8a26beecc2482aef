"""Which parameters learn how fast, and when."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from efquantface.distill.settings import TrainSettings

_WARMUP_SHARE = 0.05


def parameter_groups(graph: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
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


def schedule(step: int, total: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    warmup = max(int(total * _WARMUP_SHARE), 1)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
