"""The fixed quantizer of the pixels, and the first convolution that takes in the normalization."""

from __future__ import annotations

import torch
from torch import fx

from efquantface.graph import ops
from efquantface.graph.graph import insert_after, module_of
from efquantface.quantize.fake_quant import InputQuantizer


def place_input(gm: fx.GraphModule, symmetric: bool) -> None:
    """Replace the normalization in front by the fixed input quantizer."""
    placeholder = next(n for n in gm.graph.nodes if n.op == "placeholder")
    first = next(iter(placeholder.users))
    module = module_of(gm, first)
    if not isinstance(module, ops.Normalize):
        first = insert_after(gm, placeholder, "normalize", ops.Normalize([0.0] * 3, [1.0] * 3))
        module = ops.Normalize([0.0] * 3, [1.0] * 3)
    mean, std = module.mean.double(), module.std.double()
    user = next(iter(first.users))
    conv = module_of(gm, user)
    folds = isinstance(conv, ops.Conv2d) and len(first.users) == 1 and conv.groups == 1
    padded = not folds or any(int(p) for p in conv.padding)  # type: ignore[union-attr]
    uniform = bool((mean == mean[0]).all() and (std == std[0]).all())
    if folds and (uniform or not padded):
        assert isinstance(conv, ops.Conv2d)
        scale = float(1 / std.mean())
        zero_point = 128 if symmetric else int(min(max(round(float(mean.mean())), 0), 255))
        _absorb_normalization(conv, mean, std, scale, zero_point)
        pixels = True
    else:
        low, high = float((-mean / std).min()), float(((255 - mean) / std).max())
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(-low, high) / 127 if symmetric else (high - low) / 255
        zero_point, pixels = 128 if symmetric else round(-low / scale), False
    quantizer = InputQuantizer(mean.tolist(), std.tolist(), scale, zero_point, pixels, symmetric)
    gm.set_submodule(str(first.target), quantizer)


@torch.no_grad()
def _absorb_normalization(
    conv: ops.Conv2d, mean: torch.Tensor, std: torch.Tensor, scale: float, zero_point: int
) -> None:
    """``conv((p - mean) / std) = conv'((p - zero_point) * scale)`` away from a zero-padded border."""
    weight = conv.weight.double()
    assert conv.bias is not None
    shift = ((zero_point - mean) / std).view(1, -1, 1, 1)
    conv.bias.copy_(conv.bias.double() + (weight * shift).sum(dim=(1, 2, 3)))
    conv.weight.copy_(weight / (std * scale).view(1, -1, 1, 1))
