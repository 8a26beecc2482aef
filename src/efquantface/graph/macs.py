"""How much a network computes, in multiply-accumulates."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()
def macs(network: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulates for one crop.

    Convolutions, linear layers and matrix products of two activations count. Elementwise operators do
    not, as is usual.
    """
    parameter = next(network.parameters())
    was_training = network.training
    network.eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, height, width, device=parameter.device))
    network.train(was_training)
    return int(counter.get_total_flops()) // 2
