"""Which parameters learn how fast, and when."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from efquantface.distill.settings import TrainSettings

_WARMUP_SHARE = 0.05
_RATE = 0.0044
_BATCH = 64


def rate_for(loss: float, batch: int = _BATCH) -> float:
    """Learning rate for a student that starts with this held-out cosine loss.

    ``0.0044 sqrt(loss)`` for 64 images a step, and in proportion for other batches: the closer the
    start is to the teacher, the less a weight has to move. It meets the rates that were best in
    trials from 1 - cosine 0.0003 (dlib in W8A8) to 0.38 (y1 in W4A4), over which they differ
    sixtyfold (docs/experiments/2026-11-25-low-bit-defaults.md).

    Args:
        loss: mean 1 - cosine to the teacher, as a share of what strangers have.
        batch: images a step.
    """
    return _RATE * math.sqrt(max(loss, 0.0)) * batch / _BATCH


def parameter_groups(graph: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """Weights, biases, and scales and zero points, each with what concerns them.

    The rate of weights and biases (``base_lr`` None) is filled in once the start's loss is known.

    The fewer the codes, the less a quantizer's scale has to say about each of them, and the faster it
    may move: scales learn faster by ``sqrt(2^(8 - bits))``, as in LSQ, whose gradients are scaled by
    the root of the number of codes (Esser et al. 2020, section 2.2).

    Parameters stand in the order of their names, so that a saved state fits any graph of the same ones.
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
    """Linear warm-up, then a cosine to zero."""
    warmup = max(int(total * _WARMUP_SHARE), 1)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
