"""How much a network computes: multiply-accumulates of its convolutions and products."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from efquantface.models.graph import module_of
from efquantface.models.islands import MatMul


@torch.no_grad()
def macs(gm: fx.GraphModule, height: int, width: int) -> int:
    """Multiply-accumulates for one crop, of everything that multiplies matrices.

    Convolutions and linear layers, float or quantized, and products of two activations; what works
    value by value is not counted, as is usual.
    """
    total = 0

    class _Counter(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            nonlocal total
            result = super().run_node(n)
            module: Any = module_of(gm, n)
            if isinstance(module, nn.Conv2d) or type(module).__name__ == "QuantConv2d":
                kernel = module.kernel_size[0] * module.kernel_size[1]
                total += result.numel() * kernel * module.in_channels // module.groups
            elif isinstance(module, nn.Linear) or type(module).__name__ == "QuantLinear":
                total += result.numel() * module.in_features
            elif isinstance(module, MatMul):
                total += result.numel() * self.env[n.args[0]].shape[-1]  # type: ignore[index]
            return result

    was_training = gm.training
    gm.eval()
    device = next(gm.parameters()).device
    _Counter(gm).run(torch.zeros(1, 3, height, width, device=device))
    gm.train(was_training)
    return total
