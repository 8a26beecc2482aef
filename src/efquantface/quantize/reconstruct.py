"""Reconstruction: each layer corrects the errors of earlier layers and of its own rounding.

Layers are visited in order, in student and teacher, on a few hundred crops. The student's layer reads
``x'``; the teacher's gives ``y = W x + b``. First, the real-valued weights and bias are found that come
closest to ``y`` from ``x'`` (ridge regression towards ``W``). This includes bias correction (Nagel et
al. 2019, section 4.2). Then the weights are rounded, one input after the other. The inputs that are not
rounded yet compensate each rounding error (Frantar et al. 2023, GPTQ, section 3). The objective is
AdaRound's, in closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from efquantface.graph.fitting import Fit, Stepper, fit
from efquantface.graph.graph import name_of
from efquantface.quantize.layers import QuantConv2d, QuantLinear
from efquantface.quantize.pairs import Bounds, reserved_bounds
from efquantface.quantize.placement import quantizer_before
from efquantface.quantize.ranges import search_weight_scales

# bits; a ridge of 1 was the best of 0.01 to 3 at these, 4 and 16 are better at 6 and 8
_RIDGE_OF_ONE = 4
_FEW_INPUTS = 512  # of a channel; rounding at many scales takes that many times longer
_SHARES = torch.linspace(0.8, 1.05, 11).tolist()  # of the scale with the least error of the weights


@torch.no_grad()
def reconstruct(
    student: fx.GraphModule,
    teacher: fx.GraphModule,
    pixels: Tensor,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Fit and round the student's layers in place.

    Args:
        student: quantized graph with ranges.
        teacher: the float graph that it was quantized from, with the same equalization.
        pixels: (N,3,H,W); a hundred crops are enough.
        seed: of the positions that layers are fitted on.
        progress: called with (done, total).
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
    # with more bits there is less to correct, and a fit would follow noise
    found = fit(layer, x, wanted, generator, ridge=2.0 ** (layer.bits - _RIDGE_OF_ONE))
    if found is None:
        return
    groups, _, inputs = found.weight.shape
    scales = search_weight_scales(
        found.weight.reshape(-1, inputs).float(), layer.limit, layer.pair_limit
    )
    chosen = _rounded(found, scales.double().reshape(groups, -1, 1), layer)
    # training starts at the weights that were rounded; from the middle of a code's interval, all
    # weights would first have to leave it
    latent = chosen.latent.reshape(layer.latent.shape).float()
    layer.set_weight(latent, found.bias(chosen.codes * chosen.scales))
    layer.set_scale(chosen.scales.reshape(-1).float())


@dataclass(frozen=True)
class _Rounded:
    """Rounded weights: scales (G,O,1), codes (G,O,K), and the corrected weights that were rounded."""

    scales: Tensor
    codes: Tensor
    latent: Tensor

    def of(self, index: Tensor) -> _Rounded:
        """The same for some outputs, by index (G,O)."""
        at = index.unsqueeze(2)
        each = at.expand(-1, -1, self.codes.shape[2])
        return _Rounded(
            self.scales.gather(1, at), self.codes.gather(1, each), self.latent.gather(1, each)
        )


def _rounded(found: Fit, scales: Tensor, layer: QuantConv2d | QuantLinear) -> _Rounded:
    """Round at ``scales`` (G,O,1). With limited pairs, round at the best of several scales near them.

    The limit makes codes coarser. With few inputs, a channel's error depends much on the scale: one of a
    few scales loses clearly less of the channel's output than the mean. With many inputs the differences
    average out.
    """
    if layer.pair_limit is None or found.weight.shape[2] > _FEW_INPUTS:
        low, high = _bounds(found.weight / scales, layer)
        latent, codes = _round(found.weight, found.regularized, scales, low, high)
        if layer.pair_limit is not None:
            latent = torch.clamp(latent, low * scales, high * scales)
        return _Rounded(scales, codes, latent)
    groups, outputs, _ = scales.shape
    many = torch.cat([scales * share for share in _SHARES], dim=1)  # scales as further outputs
    weight = found.weight.repeat(1, len(_SHARES), 1)
    low, high = _bounds(weight / many, layer)
    latent, codes = _round(weight, found.regularized, many, low, high)
    errors = codes * many - weight
    lost = ((errors @ found.gram) * errors).sum(dim=2).view(groups, len(_SHARES), outputs)
    best = lost.argmin(dim=1) * outputs + torch.arange(outputs)
    # the layer finds its limits from its largest weights, so these stay within them
    return _Rounded(many, codes, torch.clamp(latent, low * many, high * many)).of(best)


def _bounds(codes: Tensor, layer: QuantConv2d | QuantLinear) -> Bounds:
    """(low, high) for the codes (G,O,K), known before they are rounded."""
    high = torch.full_like(codes, layer.limit)
    if layer.pair_limit is None:
        return -high, high
    low, pairs = reserved_bounds(codes.flatten(0, 1), layer.pair_limit)
    return low.view_as(codes).clamp(min=-layer.limit), torch.minimum(pairs.view_as(codes), high)


def _round(
    weight: Tensor, gram: Tensor, scales: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Round ``weight``, and hand errors on along the Cholesky factor of the inverse Hessian.

    Args:
        weight: (G,O,K), by group, output and input.
        gram: covariance (G,K,K) of the inputs.
        scales: (G,O,1) of the codes.
        low, high: (G,O,K), limits of the codes.

    Returns:
        The corrected weights that were rounded, and their codes, each (G,O,K).
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    factor = torch.linalg.cholesky(inverse, upper=True)
    left, codes = weight.clone(), torch.zeros_like(weight)
    for k in range(weight.shape[2]):
        codes[..., k] = torch.round(left[..., k] / scales[..., 0]).clamp(low[..., k], high[..., k])
        error = (left[..., k] - codes[..., k] * scales[..., 0]) / factor[:, k, k, None]
        left[..., k + 1 :] -= error[..., None] * factor[:, None, k, k + 1 :]
    return left, codes
