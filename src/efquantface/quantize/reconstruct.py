"""Rounding without training: each layer gives back what the layers before it and its own grid lost.

Layers are visited in order, student and teacher side by side on a few hundred crops. Where the
student's layer reads ``x'`` and the teacher's gives ``y = W x + b``, first the real-valued weights
and bias that come closest to ``y`` from ``x'`` are found (ridge regression towards ``W``); it takes
in the mean error that bias correction removes (Nagel et al. 2019, section 4.2). Then the weights
are rounded one input after the other, what each rounding costs being made up for by the inputs not
rounded yet (Frantar et al. 2023, GPTQ, section 3; the objective is AdaRound's, in closed form).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx

from efquantface.graph.fitting import Stepper, fit
from efquantface.graph.graph import name_of
from efquantface.quantize.layers import QuantConv2d, QuantLinear
from efquantface.quantize.pairs import Bounds, reserved_bounds
from efquantface.quantize.placement import quantizer_before
from efquantface.quantize.ranges import search_weight_scales

# bits; a ridge of 1 was the best of 0.01 to 3 there, 4 and 16 are better at 6 and 8
_RIDGE_OF_ONE = 4


@torch.no_grad()
def reconstruct(
    student: fx.GraphModule,
    teacher: fx.GraphModule,
    pixels: Tensor,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Fit and round the student's layers in place; its ranges must be set.

    Args:
        student: quantized graph.
        teacher: the float graph that it was quantized from, its channels scaled alike.
        pixels: (N,3,H,W); a hundred crops are enough.
    """
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = Stepper(student, pixels.float()), Stepper(teacher, pixels.float())
    layers = [m for m in student.modules() if isinstance(m, QuantConv2d | QuantLinear)]
    done = 0
    while (at := ours.step()) is not None:
        node, module = at
        if isinstance(module, QuantConv2d | QuantLinear):
            wanted = theirs.until(name_of(node))
            _fit(module, ours.inputs(node)[0], wanted, generator)
            module.refresh_bias(quantizer_before(student, node).qparams()[0])
            done += 1
            progress(done, len(layers))
        ours.finish(node, module)


def _fit(
    layer: QuantConv2d | QuantLinear, x: Tensor, wanted: Tensor, generator: torch.Generator
) -> None:
    # the finer the grid, the less there is to give back, and the more a fit would follow noise
    found = fit(layer, x, wanted, generator, ridge=2.0 ** (layer.bits - _RIDGE_OF_ONE))
    if found is None:
        return
    groups, _, inputs = found.weight.shape
    scales = search_weight_scales(
        found.weight.reshape(-1, inputs).float(), layer.limit, layer.pair_limit
    )
    wide = scales.double().reshape(groups, -1, 1)
    low, high = _bounds(found.weight / wide, layer)
    latent, codes = _round(found.weight, found.gram, wide, low, high)
    rounded = codes * wide
    if layer.pair_limit is not None:  # the layer's own limits are those of its largest weights
        latent = torch.clamp(latent, low * wide, high * wide)
    # training goes on from what was rounded, not from the middle of a code's interval, which all
    # weights would first have to leave
    layer.set_weight(latent.reshape(layer.latent.shape).float(), found.bias(rounded))
    layer.set_scale(scales)


def _bounds(codes: Tensor, layer: QuantConv2d | QuantLinear) -> Bounds:
    """(low, high) of the codes (G,O,K), before they are rounded."""
    high = torch.full_like(codes, layer.limit)
    if layer.pair_limit is None:
        return -high, high
    low, pairs = reserved_bounds(codes.flatten(0, 1), layer.pair_limit)
    return low.view_as(codes).clamp(min=-layer.limit), torch.minimum(pairs.view_as(codes), high)


def _round(
    weight: Tensor, gram: Tensor, scales: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Round ``weight`` (G,O,K), handing errors on along the inverse Hessian's Cholesky factor.

    Args:
        weight: of groups, their outputs and inputs.
        gram: (G,K,K) of the inputs.
        scales: (G,O,1) of the codes.
        low, high: (G,O,K), what codes are clamped to.

    Returns:
        What each weight had become when its turn came, and its code.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    factor = torch.linalg.cholesky(inverse, upper=True)
    left, codes = weight.clone(), torch.zeros_like(weight)
    for k in range(weight.shape[2]):
        codes[..., k] = torch.round(left[..., k] / scales[..., 0]).clamp(low[..., k], high[..., k])
        error = (left[..., k] - codes[..., k] * scales[..., 0]) / factor[:, k, k, None]
        left[..., k + 1 :] -= error[..., None] * factor[:, None, k, k + 1 :]
    return left, codes
