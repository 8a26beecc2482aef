"""Transpositions that cancel: values per channel in between are computed with the channels in front.

TensorFlow keeps channels last; exporters turn maps, add or bend, and turn them back.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from efquantface.graph import ops
from efquantface.graph.graph import module_nodes, module_of, skip, tidy

_LAST, _FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def channels_first(gm: fx.GraphModule) -> fx.GraphModule:
    """Take out pairs of transpositions to (N,H,W,C) and back, in place."""
    while any(_cancel(gm, node, module) for node, module in module_nodes(gm)):
        tidy(gm)
    return tidy(gm)


def _cancel(gm: fx.GraphModule, node: fx.Node, module: nn.Module) -> bool:
    """One pair that begins at ``node``, with what is between."""
    if not isinstance(module, ops.Transpose) or module.order not in (_LAST, _FIRST):
        return False
    to_last = module.order == _LAST
    between: list[tuple[fx.Node, nn.Module]] = []
    at = node
    while len(at.users) == 1:
        at = next(iter(at.users))
        found = module_of(gm, at)
        if isinstance(found, ops.Transpose):
            if found.order != (_FIRST if to_last else _LAST):
                return False
            for inner, turned in between:
                gm.set_submodule(str(inner.target), turned)
            skip(gm, at)
            skip(gm, node)
            return True
        turned_module = _turned(found, to_last)
        if turned_module is None:
            return False
        between.append((at, turned_module))
    return False


def _turned(module: nn.Module | None, to_last: bool) -> nn.Module | None:
    """An operator of single values as it is without the transposition in front; None for others."""
    if isinstance(module, ops.Clamp | ops.Sigmoid | ops.Gelu | ops.Function):
        return module
    if not to_last or not isinstance(module, ops.Scale | ops.Shift):
        return None
    values = (module.weight if isinstance(module, ops.Scale) else module.bias).detach()
    if values.numel() == 1 or values.shape[-1:] != values.flatten().shape:
        return module if values.numel() == 1 else None
    return _affine(values.flatten(), isinstance(module, ops.Scale))


@torch.no_grad()
def _affine(values: Tensor, is_factor: bool) -> ops.Affine:
    affine = ops.Affine(len(values))
    (affine.weight if is_factor else affine.bias).copy_(values)
    return affine
