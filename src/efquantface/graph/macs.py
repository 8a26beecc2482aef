"""How much a network computes: multiply-accumulates of its convolutions and products."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()
def macs(network: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulates for one crop, of everything that multiplies matrices.

    Convolutions, linear layers and products of two activations; what works value by value is not
    counted, as is usual.
    """
    parameter = next(network.parameters())
    was_training = network.training
    network.eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, height, width, device=parameter.device))
    network.train(was_training)
    return int(counter.get_total_flops()) // 2
