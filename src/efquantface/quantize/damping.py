"""Draws weights to their codes while they are trained.

A weight that is rounded in every step drifts to the border between two codes and jumps from one to the
other for as long as it is trained. Each jump moves the embedding. A weight that is drawn to the middle
of its code passes the border only where gradients agree (oscillations and dampening: Nagel et al. 2022,
section 4.2; here beside the optimizer, as decoupled weight decay is, not as a loss).
"""

from __future__ import annotations

import torch
from torch import nn

from efquantface.quantize.layers import QuantConv2d, QuantLinear

_MOST_BITS = 7  # codes of eight lie so close that a jump costs nothing
_BORDER = 0.5  # of a code, from its middle


@torch.no_grad()
def draw_to_codes(graph: nn.Module, step: float) -> None:
    """Move each weight towards its code: by ``step`` at the border, by less the nearer it is.

    Args:
        graph: quantized.
        step: in units of a channel's largest weight, as the learning rate of weights. No weight moves
            by more than half a code.
    """
    layers = (m for m in graph.modules() if isinstance(m, QuantConv2d | QuantLinear))
    for layer in layers:
        if layer.enabled and layer.bits <= _MOST_BITS:
            away = (layer.nearest_codes() - layer.ratio()) / _BORDER
            layer.latent.add_(away.clamp(-1, 1) * (_BORDER * layer.code_size()).clamp(max=step))
