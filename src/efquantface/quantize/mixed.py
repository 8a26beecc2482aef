"""Mixed precision: bits per layer for a budget, by what each layer's rounded weights cost the embedding.

The loss of a layer is measured: the mean ``1 - cosine`` between the embeddings of the float network and
of the same network with only this layer's weights rounded to so many bits. The loss of several layers is
taken as the sum of their losses. The choice with the least loss within the budget is a multiple-choice
knapsack, solved exactly (HiGHS, through SciPy).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, fx
from torch.nn import functional as F

from efquantface.errors import RecipeError
from efquantface.graph import ops
from efquantface.graph.graph import module_nodes, name_of
from efquantface.quantize.pairs import clamp_codes, pair_limit
from efquantface.quantize.ranges import search_weight_scales
from efquantface.quantize.scheme import Scheme

CHOICES = (4, 6, 8)


@dataclass(frozen=True)
class LayerChoice:
    """A layer, its number of weights, the loss of each choice of bits, and the chosen bits."""

    name: str
    weights: int
    losses: tuple[float, ...]  # for each of CHOICES
    bits: int = 8


@torch.no_grad()
def sensitivities(
    gm: fx.GraphModule,
    batches: list[Tensor],
    scheme: Scheme,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[LayerChoice]:
    """The loss of each layer at each of ``CHOICES`` bits.

    Args:
        gm: float canonical graph; it is the same afterwards.
        batches: pixels (N,3,H,W).
        scheme: of the activations, whose bits limit pairs of weights.
        progress: called with (done, total).
    """
    reference = _embed(gm, batches)
    layers = [(n, m) for n, m in module_nodes(gm) if isinstance(m, ops.Conv2d | ops.Linear)]
    found = []
    for index, (node, module) in enumerate(layers):
        original = module.weight.detach().clone()
        losses = []
        for bits in CHOICES:
            module.weight.copy_(_rounded(original, bits, scheme))
            cosine = F.cosine_similarity(_embed(gm, batches), reference, dim=1)
            losses.append(float((1 - cosine).clamp(min=0).mean()))
        module.weight.copy_(original)
        found.append(LayerChoice(name_of(node), original.numel(), tuple(losses)))
        progress(index + 1, len(layers))
    return found


def allocate(
    layers: list[LayerChoice], size: Callable[[LayerChoice, int], float], budget: float
) -> list[LayerChoice]:
    """The bits with the least sum of losses whose sum of sizes is within ``budget``.

    Args:
        layers: result of :func:`sensitivities`.
        size: gives the bytes of a layer at so many bits.
        budget: bytes of all layers together.

    Raises:
        RecipeError: the fewest bits do not fit.
    """
    sizes = np.array([[size(layer, bits) for bits in CHOICES] for layer in layers])
    least = sizes.min(axis=1).sum()
    if least > budget:
        raise RecipeError(
            f"the weights take {least / 1e3:.0f} KB at {min(CHOICES)} bits; the budget leaves "
            f"{max(budget, 0) / 1e3:.0f} KB for them: give a larger one"
        )
    losses = np.array([layer.losses for layer in layers])
    one_each = np.kron(np.eye(len(layers)), np.ones(len(CHOICES)))
    solved = milp(
        c=losses.ravel() / max(losses.max(), 1e-12),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(sizes.ravel()[None] / budget, -np.inf, 1),
        ],
        integrality=np.ones(losses.size),
        bounds=Bounds(0, 1),
    )
    picks = np.asarray(solved.x).reshape(losses.shape).argmax(axis=1)
    return [
        LayerChoice(layer.name, layer.weights, layer.losses, CHOICES[pick])
        for layer, pick in zip(layers, picks, strict=True)
    ]


def _rounded(weight: Tensor, bits: int, scheme: Scheme) -> Tensor:
    limit = 2 ** (bits - 1) - 1
    free = scheme.full_range or scheme.symmetric
    pairs = None if free else pair_limit(2**scheme.bits.activation - 1, bits)
    scale = search_weight_scales(weight, limit, pairs).view(-1, *(1,) * (weight.dim() - 1))
    return clamp_codes(torch.round(weight / scale), limit, pairs) * scale


def _embed(gm: fx.GraphModule, batches: list[Tensor]) -> Tensor:
    device = next(gm.parameters()).device
    return torch.cat([gm(batch.to(device).float()) for batch in batches])
