"""Which parameters learn how fast, and when."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from efquantface.distill.settings import TrainSettings

_WARMUP_SHARE = 0.05


def parameter_groups(graph: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """Weights and biases with their learning rate and decay; steps and zero points with theirs.

    The fewer the codes, the less a quantizer's step has to say about each of them, and the faster it
    may move: steps learn faster by ``sqrt(2^(8 - bits))``, as in LSQ, whose gradients are scaled by
    the root of the number of codes (Esser et al. 2020, section 2.2).
    """
    weights, biases = [], []
    steps: dict[int, list[nn.Parameter]] = {}
    for module in graph.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if name in ("log_step", "zero"):
                steps.setdefault(int(module.bits), []).append(parameter)  # type: ignore[arg-type]
            elif name == "latent_bias":
                biases.append(parameter)
            else:
                weights.append(parameter)
    return [
        {"params": weights, "base_lr": settings.lr, "weight_decay": settings.weight_decay},
        {"params": biases, "base_lr": settings.lr, "weight_decay": 0.0},
        *(
            {
                "params": parameters,
                "base_lr": settings.step_lr * 2 ** ((8 - bits) / 2),
                "weight_decay": 0.0,
            }
            for bits, parameters in sorted(steps.items())
        ),
    ]


def schedule(step: int, total: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    warmup = max(int(total * _WARMUP_SHARE), 1)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
