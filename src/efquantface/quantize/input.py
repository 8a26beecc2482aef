"""The fixed quantizer of the pixels, and the first convolutions, which absorb the normalization."""

from __future__ import annotations

import torch
from torch import fx, nn

from efquantface.graph import ops
from efquantface.graph.graph import insert_after, module_of
from efquantface.quantize.fake_quant import InputQuantizer

_BETWEEN = 1e-3  # of a code


def place_input(gm: fx.GraphModule, symmetric: bool) -> None:
    """Replace the normalization in front by the fixed input quantizer."""
    placeholder = next(n for n in gm.graph.nodes if n.op == "placeholder")
    first = next(iter(placeholder.users))
    module = module_of(gm, first)
    if not isinstance(module, ops.Normalize):
        first = insert_after(gm, placeholder, "normalize", ops.Normalize([0.0] * 3, [1.0] * 3))
        module = ops.Normalize([0.0] * 3, [1.0] * 3)
    mean, std = module.mean.double(), module.std.double()
    readers, padded = _readers(gm, first)
    folds = all(isinstance(conv, ops.Conv2d) and conv.groups == 1 for conv, _ in readers)
    padded = padded or not folds or any(int(p) for conv, _ in readers for p in conv.padding)  # type: ignore[union-attr]
    uniform = bool((mean == mean[0]).all() and (std == std[0]).all())
    if folds and (uniform or not padded):
        scale = float(1 / std.mean())
        zero_point = 128 if symmetric else int(min(max(round(float(mean.mean())), 0), 255))
        for conv, channels in readers:
            assert isinstance(conv, ops.Conv2d)
            _absorb_normalization(conv, mean[channels], std[channels], scale, zero_point)
        pixels = True
    else:
        low, high = float((-mean / std).min()), float(((255 - mean) / std).max())
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255
        # if zero lay between two codes, so would every pixel, and each would round at random
        if symmetric or abs(-low / scale % 1 - 0.5) < _BETWEEN:
            scale = max(-low, high) / 127
        zero_point, pixels = 128 if symmetric else round(-low / scale), False
    quantizer = InputQuantizer(mean.tolist(), std.tolist(), scale, zero_point, pixels, symmetric)
    gm.set_submodule(str(first.target), quantizer)


def _readers(
    gm: fx.GraphModule, first: fx.Node
) -> tuple[list[tuple[nn.Module | None, list[int]]], bool]:
    """The modules that read the normalized image, also through parts, mirror images and moved channels.

    Each comes with the channels of the image that it reads. The second value is whether one of them
    reads the image with zeros around it.
    """
    found: list[tuple[nn.Module | None, list[int]]] = []
    padded = False
    pending: list[tuple[fx.Node, list[int]]] = [(first, [0, 1, 2])]
    while pending:
        node, channels = pending.pop()
        for user in node.users:
            module = module_of(gm, user)
            if isinstance(module, ops.Pick) and module.axis == 1:
                pending.append((user, [channels[i] for i in module.indices]))
            elif isinstance(module, ops.Slice) and module.axis == 1:
                pending.append((user, channels[module.start : module.stop]))
            elif isinstance(module, ops.Pick | ops.Slice):
                pending.append((user, channels))
            elif isinstance(module, ops.ZeroPad) and not module.channels:
                padded = True
                pending.append((user, channels))
            else:
                found.append((module, channels))
    return found, padded


@torch.no_grad()
def _absorb_normalization(
    conv: ops.Conv2d, mean: torch.Tensor, std: torch.Tensor, scale: float, zero_point: int
) -> None:
    """Let ``conv`` compute from ``(p - zero_point) * scale`` what it computed from ``(p - mean) / std``.

    That is exact, but for a border with zero padding.
    """
    weight = conv.weight.double()
    assert conv.bias is not None
    shift = ((zero_point - mean) / std).view(1, -1, 1, 1)
    conv.bias.copy_(conv.bias.double() + (weight * shift).sum(dim=(1, 2, 3)))
    conv.weight.copy_(weight / (std * scale).view(1, -1, 1, 1))
