"""Channels of similar range at the borders between islands and integer layers.

In transformer-like backbones a few channels of the residual stream are a hundred times larger than
the rest. One scale for all channels would round the others to zero. At a border, a scale per channel
costs one multiplication in float, or none: a LayerNorm in front takes it into its own weight (Xiao et
al. 2023, "SmoothQuant", eq. 3, here for convolutions as well). A convolution whose result is read in
float may have a range per channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from efquantface.graph import ops
from efquantface.graph.graph import (
    add_module,
    insert_after,
    module_nodes,
    module_of,
    name_of,
    shapes,
    tidy,
)
from efquantface.quantize.codes import codes_in
from efquantface.quantize.ending import ending
from efquantface.quantize.equalize import channel_ranges

_DENSE_POWER = 0.5  # exponent; the weights take the rest of the spread
_LEAST = 1e-3  # of the largest channel's range, at least


@dataclass(frozen=True)
class _Border:
    """A layer at a border, and the axis of the channels of the value that crosses it."""

    layer: ops.Conv2d | ops.Linear
    node: fx.Node
    into: bool  # whether the layer reads float; otherwise its result is read in float

    @property
    def value(self) -> tuple[str, int]:
        """Name of the value that crosses the border, and the axis of its channels."""
        crossing = self.node.args[0] if self.into else self.node
        assert isinstance(crossing, fx.Node)
        return name_of(crossing), 1 if isinstance(self.layer, ops.Conv2d) else -1


@torch.no_grad()
def equalize_borders(
    gm: fx.GraphModule,
    batches: list[Tensor],
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> int:
    """Scale channels at the borders of a float graph in place; returns the number of borders.

    The embedding stays the same up to float rounding. A graph without islands is not changed.

    Args:
        gm: canonical float graph.
        batches: pixels (N,3,H,W).
        progress: called with (what, done, total).
    """
    sizes = shapes(gm, *batches[0].shape[2:])
    _affines_to_float(gm, sizes)
    codes = codes_in(gm, {name: len(shape) for name, shape in sizes.items()})
    end = {node for node in ending(gm, sizes) if isinstance(module_of(gm, node), ops.Linear)}
    borders = _find(gm, codes, end)
    if not borders:
        return 0
    wanted = {border.value for border in borders}
    ranges = channel_ranges(gm, batches, wanted, "equalizing borders", progress)
    for value, border in [
        (border.value, border) for border in borders
    ]:  # the scales change their sources
        largest = ranges[value]
        share = (largest / largest.max().clamp(min=1e-12)).clamp(min=_LEAST)
        if border.into:
            _scale_input(gm, border, share)
        else:
            _scale_output(gm, border, share)
    tidy(gm)
    return len(borders)


def _affines_to_float(gm: fx.GraphModule, sizes: dict[str, tuple[int, ...]]) -> None:
    """Replace an affine by a factor and an offset in float, where only islands read it."""
    codes = codes_in(gm, {name: len(shape) for name, shape in sizes.items()})
    end = ending(gm, sizes)
    for node, module in module_nodes(gm):
        if not isinstance(module, ops.Affine) or node in end:
            continue
        if not all(_only_in_float(gm, user, codes) for user in node.users):
            continue
        shape = (module.channels, *(1,) * (len(sizes[name_of(node)]) - 2))
        scale, shift = ops.Scale(shape), ops.Shift(shape)
        scale.weight.copy_(module.weight.view(shape))
        shift.bias.copy_(module.bias.view(shape))
        if bool(module.bias.any()):
            insert_after(gm, node, f"{node.target}_shift", shift)
        gm.set_submodule(str(node.target), scale)


def _only_in_float(gm: fx.GraphModule, user: fx.Node, codes: set[fx.Node]) -> bool:
    """Whether ``user`` and all readers that it hands codes on to compute in float."""
    module = module_of(gm, user)
    if user.op == "output" or user not in codes:
        return user.op != "output" and not isinstance(module, ops.Linear)
    return ops.moves_codes(module) and all(_only_in_float(gm, u, codes) for u in user.users)


def _find(gm: fx.GraphModule, codes: set[fx.Node], last: set[fx.Node]) -> list[_Border]:
    """All borders. Layers in ``last`` have none: they give the embedding, in float."""
    found = []
    for node, module in module_nodes(gm):
        if not isinstance(module, ops.Conv2d | ops.Linear):
            continue
        source = node.args[0]
        if source not in codes:
            found.append(_Border(module, node, True))
        if (
            node in codes
            and node not in last
            and any(_read_in_float(gm, user, codes) for user in node.users)
        ):
            found.append(_Border(module, node, False))
    return found


def _read_in_float(gm: fx.GraphModule, user: fx.Node, codes: set[fx.Node]) -> bool:
    """Whether ``user`` or a reader that it hands codes on to computes in float."""
    module = module_of(gm, user)
    if user.op == "output":
        return False
    if user not in codes:
        return not isinstance(module, ops.Linear)
    return ops.moves_codes(module) and any(_read_in_float(gm, u, codes) for u in user.users)


def _scale_input(gm: fx.GraphModule, border: _Border, share: Tensor) -> None:
    layer, node = border.layer, border.node
    depthwise = isinstance(layer, ops.Conv2d) and layer.groups == layer.in_channels
    if isinstance(layer, ops.Conv2d) and not depthwise and layer.groups != 1:
        return
    factor = share if depthwise else share**_DENSE_POWER
    if depthwise:
        each = len(layer.weight) // len(factor)  # filters that read one channel
        layer.weight.mul_(factor.repeat_interleave(each).view(-1, 1, 1, 1))
    else:
        layer.weight.mul_(factor.view(1, -1, *(1,) * (layer.weight.dim() - 2)))
    norm = _norm_before(gm, node, len(factor))
    if norm is not None:
        norm.weight.div_(factor)
        norm.bias.div_(factor)
        return
    source = node.args[0]
    assert isinstance(source, fx.Node)
    name = add_module(gm, f"{node.target}_scaled", _scale(1 / factor, layer))
    with gm.graph.inserting_before(node):
        scaled = gm.graph.call_module(name, (source,))
    node.replace_input_with(source, scaled)


def _scale_output(gm: fx.GraphModule, border: _Border, share: Tensor) -> None:
    layer = border.layer
    layer.weight.div_(share.view(-1, *(1,) * (layer.weight.dim() - 1)))
    assert layer.bias is not None
    layer.bias.div_(share)
    insert_after(gm, border.node, f"{border.node.target}_scaled", _scale(share, layer))


def _scale(factor: Tensor, layer: ops.Conv2d | ops.Linear) -> ops.Scale:
    shape = (len(factor), 1, 1) if isinstance(layer, ops.Conv2d) else (len(factor),)
    scale = ops.Scale(shape)
    scale.weight.copy_(factor.view(shape))
    return scale


def _norm_before(gm: fx.GraphModule, node: fx.Node, channels: int) -> ops.LayerNorm | None:
    """The LayerNorm that only this layer reads, directly or through a transposition; else None."""
    at = node.args[0]
    while isinstance(at, fx.Node) and len(at.users) == 1:
        module: Any = module_of(gm, at)
        if isinstance(module, ops.LayerNorm):
            return module if module.features == channels else None
        if not isinstance(module, ops.Transpose):
            return None
        at = at.args[0]
    return None
