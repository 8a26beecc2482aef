"""Weights settle on their codes one after the other, while those that have not are trained in float.

A weight that is rounded in every step jumps between two codes for as long as it is trained, and with
four bits each jump moves the embedding. A settled weight stays; the weights that are still free make up
for its rounding (incremental quantization: Zhou et al. 2017, section 2.2, who choose by size; here
those nearest to a code go first).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from efquantface.quantize.layers import QuantConv2d, QuantLinear

MOST_BITS = 4  # with more, codes lie so close that jumps cost little
_LEAST_STEPS = 2000  # in fewer, free weights cannot make up for those that settle
_EVERY = 10  # steps
_LAST = 0.95  # of the training, in which the last weight settles; biases and scales learn on
_POWER = 2.0  # many settle early, when the many that are free can make up for them


def share_at(done: float) -> float:
    """Share of each layer's weights that are settled once this share of the training is done.

    >>> [round(share_at(x), 2) for x in (0, 0.25, 0.5, 0.95, 1)]
    [0.0, 0.46, 0.78, 1.0, 1.0]
    """
    left: float = (1 - min(done / _LAST, 1.0)) ** _POWER
    return 1 - left


def settling_layers(graph: nn.Module) -> Iterator[tuple[str, QuantConv2d | QuantLinear]]:
    """Names and layers whose weights are of so few bits that they settle."""
    for name, module in graph.named_modules():
        if isinstance(module, QuantConv2d | QuantLinear) and module.bits <= MOST_BITS:
            yield name, module


def suits(graph: nn.Module, steps: int) -> bool:
    """Whether so long a training gains by settling (docs/experiments/2026-11-28-settling.md)."""
    return steps >= _LEAST_STEPS and any(settling_layers(graph))


class Settling:
    """The layers of a graph whose weights settle while it is trained.

    It adds a buffer of codes to each, so that a saved state knows them; :meth:`finish` takes it away.

    Args:
        graph: quantized.
        teacher: the float graph that it was quantized from. Its weights are where training begins: those
            that were rounded against it make up for each other's rounding, and are wrong unrounded.
    """

    def __init__(self, graph: nn.Module, teacher: nn.Module | None = None) -> None:
        theirs = {} if teacher is None else dict(teacher.named_modules())
        self.layers = []
        for name, layer in settling_layers(graph):
            layer.settled = torch.full_like(layer.latent, math.nan, requires_grad=False)
            weight = getattr(theirs.get(name), "weight", None)
            if isinstance(weight, Tensor) and weight.shape == layer.latent.shape:
                layer.take_weight(weight)
            self.layers.append(layer)

    @property
    def whole(self) -> bool:
        """Whether every weight stands on its code."""
        return not any(bool(layer.free.any()) for layer in self.layers)

    def advance(self, step: int, total: int) -> None:
        """Settle what is due in this step."""
        if step % _EVERY == 0:
            self.settle(share_at(step / total))

    def settle(self, share: float) -> None:
        """Settle weights until this share of each layer's is settled."""
        for layer in self.layers:
            _settle(layer, share)

    def finish(self) -> None:
        """Make the codes the weights; what has not settled goes to its nearest one."""
        self.settle(1.0)
        for layer in self.layers:
            layer.take_settled()
        self.layers = []


@torch.no_grad()
def _settle(layer: QuantConv2d | QuantLinear, share: float) -> None:
    free, settled = layer.free, layer.settled
    assert settled is not None
    due = round(share * free.numel()) - int((~free).sum())
    if due <= 0:
        return
    ratio = layer.ratio()
    codes = torch.clamp(torch.round(ratio), -layer.limit, layer.limit)
    away = torch.where(free, (ratio - codes).abs(), math.inf).flatten()
    chosen = torch.topk(away, due, largest=False).indices
    new = torch.zeros(free.numel(), dtype=torch.bool, device=free.device)
    new[chosen] = True
    settled.copy_(torch.where(new.view(free.shape), codes, settled))
