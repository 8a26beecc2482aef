"""Cross-layer equalization that understands PReLU and ReLU6: channels of one tensor get similar ranges.

PReLU and ReLU commute with a positive factor per channel, so a channel can be divided by ``r`` in
the layer that makes it and multiplied by ``r`` in the layer that reads it without changing the
embedding (Nagel et al. 2019, section 4.1). Per-tensor activation ranges gain where one channel
dwarfs the others. For a depthwise reader it is free: its weights have one scale a channel anyway.
A dense reader pays with the spread of its weights over input channels, so there only the square
root of the range is evened out.

A ReLU6 does not commute, but its 6 need only be above what a channel reaches: a channel scaled up to the
largest of its tensor stops no earlier than at its own largest value of the given pixels.

A factor may be negative, too: ``PReLU_a(x) = -a PReLU_1/a(-x)`` for a slope ``a > 1``. With no slope
above one the integer form of a PReLU has an operator less (:func:`split_prelu`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from efquantface.graph import ops
from efquantface.graph.graph import module_nodes, module_of, name_of, shapes

_DENSE_POWER = 0.5
_MAX_FACTOR = 1e3  # channels that are (nearly) always zero are not blown up further
_MAX_CAPPED_FACTOR = 16.0  # behind ReLU6 they could not come back


@dataclass(frozen=True)
class _Chain:
    maker: ops.Conv2d | ops.Linear | ops.Affine
    tensors: tuple[str, ...]  # names of the values that scale with the maker's channels
    reader: ops.Conv2d | ops.Linear
    spread: int  # reader inputs per channel (a flattened map)
    bends: tuple[nn.Module, ...]  # what is not linear between maker and reader

    @property
    def prelu(self) -> ops.PReLU | None:
        """The PReLU, where nothing else between the layers would mind a negative factor."""
        (only,) = self.bends if len(self.bends) == 1 else (None,)
        return only if isinstance(only, ops.PReLU) else None

    @property
    def capped(self) -> bool:
        """Whether the channels stop at a value, as those of a ReLU6 do."""
        return any(isinstance(b, ops.Clamp) and b.high is not None for b in self.bends)


@torch.no_grad()
def equalize(
    gm: fx.GraphModule,
    batches: list[Tensor],
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> int:
    """Equalize a float canonical graph in place; returns how many layer pairs were changed.

    The embedding of ``batches`` (pixels (N,3,H,W)) stays the same up to float rounding, and with it
    that of all pixels unless channels of a ReLU6 rise beyond their largest value of the batches.
    """
    sizes = shapes(gm, *batches[0].shape[2:])
    chains = _find_chains(gm, {name: len(shape) for name, shape in sizes.items()})
    for chain in chains:
        _turn_steep_channels(chain)
    wanted = {(name, 1) for chain in chains for name in chain.tensors}
    ranges = channel_ranges(gm, batches, wanted, "equalizing channels", progress)
    for chain in chains:
        channel = torch.stack([ranges[name, 1] for name in chain.tensors]).amax(dim=0)
        _rescale(chain, channel)
    return len(chains)


def _rescale(chain: _Chain, channel: Tensor) -> None:
    reader = chain.reader
    largest = channel.max()
    if not largest > 0:
        return
    power = 1.0 if _is_depthwise(reader) else _DENSE_POWER
    most = _MAX_CAPPED_FACTOR if chain.capped else _MAX_FACTOR
    factor = (channel / largest).clamp(min=1 / most) ** power
    _scale_outputs(chain.maker, 1 / factor)
    _scale_inputs(reader, factor, chain.spread)


def _turn_steep_channels(chain: _Chain) -> None:
    """The other sign for channels whose slope is above one, which then is its inverse."""
    prelu = chain.prelu
    if prelu is None:
        return
    steep = prelu.slope > 1
    _scale_outputs(chain.maker, torch.where(steep, -1.0, 1.0))
    _scale_inputs(chain.reader, torch.where(steep, -prelu.slope, 1.0), chain.spread)
    prelu.slope.copy_(torch.where(steep, 1 / prelu.slope, prelu.slope))


def _scale_outputs(maker: ops.Conv2d | ops.Linear | ops.Affine, factor: Tensor) -> None:
    """Multiply the channels (C,) that a layer makes."""
    maker.weight.mul_(factor.view(-1, *(1,) * (maker.weight.dim() - 1)))
    assert maker.bias is not None
    maker.bias.mul_(factor)


def _scale_inputs(reader: ops.Conv2d | ops.Linear, factor: Tensor, spread: int) -> None:
    """Let a layer read its input channels times ``factor`` (C,)."""
    if _is_depthwise(reader):
        reader.weight.mul_(factor.view(-1, 1, 1, 1))
    elif isinstance(reader, ops.Conv2d):
        reader.weight.mul_(factor.view(1, -1, 1, 1))
    else:
        reader.weight.mul_(factor.repeat_interleave(spread))


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, ops.Conv2d) and layer.groups == layer.in_channels


def _find_chains(gm: fx.GraphModule, ranks: dict[str, int]) -> list[_Chain]:
    """maker -> (PReLU | ReLU | pooling | flatten)* -> reader, each with one reader only.

    A linear layer over the last axis of a map makes no channels.
    """
    chains = []
    for node, maker in module_nodes(gm):
        if not isinstance(maker, ops.Conv2d | ops.Linear | ops.Affine):
            continue
        if isinstance(maker, ops.Linear) and ranks[name_of(node)] > 2:
            continue
        tensors, at, spread = [name_of(node)], node, 1
        bends: list[nn.Module] = []
        while len(at.users) == 1:
            at = next(iter(at.users))
            module = module_of(gm, at)
            if isinstance(module, ops.PReLU):
                tensors.append(name_of(at))
                bends.append(module)
            elif isinstance(module, ops.Clamp) and module.low == 0:
                tensors = [name_of(at)]  # a quantizer takes it in: no code is made in front of it
                bends.append(module)
            elif isinstance(module, ops.Flatten):
                spread = -1  # known only from the reader
            elif isinstance(module, ops.Linear):
                channels = maker.weight.shape[0]
                width = module.in_features // channels if spread < 0 else 1
                chains.append(_Chain(maker, tuple(tensors), module, width, tuple(bends)))
                break
            elif isinstance(module, ops.Conv2d) and module.groups in (1, module.in_channels):
                if module.groups == 1 or module.out_channels == module.in_channels:
                    chains.append(_Chain(maker, tuple(tensors), module, 1, tuple(bends)))
                break
            elif isinstance(module, ops.MaxPool2d):
                bends.append(module)
            elif not isinstance(module, ops.AvgPool2d):
                break
    return chains


def channel_ranges(
    gm: fx.GraphModule,
    batches: list[Tensor],
    wanted: set[tuple[str, int]],
    what: str,
    progress: Callable[[str, int, int], None],
) -> dict[tuple[str, int], Tensor]:
    """Largest absolute value (C,) of the channels of wanted (name, axis of channels), over batches.

    ``what`` names the work in the calls of ``progress``.
    """
    found: dict[tuple[str, int], Tensor] = {}

    class _Watcher(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            for axis in (1, -1):
                key = name_of(n), axis
                if n.op == "call_module" and key in wanted:
                    assert isinstance(result, Tensor)
                    flat = result.abs().transpose(0, axis).flatten(1).amax(dim=1)
                    found[key] = torch.maximum(found[key], flat) if key in found else flat
            return result

    device = next(gm.parameters()).device
    for index, batch in enumerate(batches):
        _Watcher(gm).run(batch.to(device).float())
        progress(what, index + 1, len(batches))
    return found
