"""Cross-layer equalization, also across PReLU and ReLU6: channels of one tensor get similar ranges.

PReLU and ReLU commute with a positive factor per channel. So a channel can be divided by ``r`` in the
layer that gives it and multiplied by ``r`` in the layer that reads it, and the embedding stays the same
(Nagel et al. 2019, section 4.1). Per-tensor ranges gain where one channel is far larger than the others.
A depthwise reader loses nothing: its weights have one scale per channel. A dense reader's weights spread
more over input channels, so there only the square root of the range is evened out.

A ReLU6 does not commute. But its 6 only has to be above what a channel reaches: a channel that is scaled
up to the largest of its tensor is not cut below its own largest value on the given pixels.

A factor may be negative, too: ``PReLU_a(x) = -a PReLU_1/a(-x)`` for a slope ``a > 1``. Without slopes
above 1 the integer form of a PReLU has one operator less (:func:`split_prelu`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from efquantface.graph import ops
from efquantface.graph.graph import module_nodes, module_of, name_of, shapes

_DENSE_POWER = 0.5
_MAX_FACTOR = 1e3  # at most, for channels that are nearly always zero
_MAX_CAPPED_FACTOR = 16.0  # the same behind ReLU6, which would cut such channels


@dataclass(frozen=True)
class _Chain:
    maker: ops.Conv2d | ops.Linear | ops.Affine
    tensors: tuple[str, ...]  # names of the values that scale with the maker's channels
    reader: ops.Conv2d | ops.Linear
    spread: int  # reader inputs per channel (a flattened map)
    bends: tuple[nn.Module, ...]  # modules between maker and reader that are not linear

    @property
    def prelu(self) -> ops.PReLU | None:
        """The PReLU between both layers, if nothing else between them forbids a negative factor."""
        (only,) = self.bends if len(self.bends) == 1 else (None,)
        return only if isinstance(only, ops.PReLU) else None

    @property
    def capped(self) -> bool:
        """Whether the channels have an upper limit, as in a ReLU6."""
        return any(isinstance(b, ops.Clamp) and b.high is not None for b in self.bends)


@torch.no_grad()
def equalize(
    gm: fx.GraphModule,
    batches: list[Tensor],
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> int:
    """Equalize a float canonical graph in place; returns how many pairs of layers were changed.

    The embeddings of ``batches`` (pixels (N,3,H,W)) stay the same up to float rounding. So do those of
    other pixels, unless channels of a ReLU6 exceed their largest value on the batches.
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
    """Change the sign of channels with a slope above 1; the slope becomes its inverse."""
    prelu = chain.prelu
    if prelu is None:
        return
    steep = prelu.slope > 1
    _scale_outputs(chain.maker, torch.where(steep, -1.0, 1.0))
    _scale_inputs(chain.reader, torch.where(steep, -prelu.slope, 1.0), chain.spread)
    prelu.slope.copy_(torch.where(steep, 1 / prelu.slope, prelu.slope))


def _scale_outputs(maker: ops.Conv2d | ops.Linear | ops.Affine, factor: Tensor) -> None:
    """Multiply a layer's output channels by ``factor`` (C,)."""
    maker.weight.mul_(factor.view(-1, *(1,) * (maker.weight.dim() - 1)))
    assert maker.bias is not None
    maker.bias.mul_(factor)


def _scale_inputs(reader: ops.Conv2d | ops.Linear, factor: Tensor, spread: int) -> None:
    """Multiply a layer's weights of its input channels by ``factor`` (C,)."""
    if _is_depthwise(reader):
        reader.weight.mul_(factor.view(-1, 1, 1, 1))
    elif isinstance(reader, ops.Conv2d):
        reader.weight.mul_(factor.view(1, -1, 1, 1))
    else:
        reader.weight.mul_(factor.repeat_interleave(spread))


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, ops.Conv2d) and layer.groups == layer.in_channels


def _find_chains(gm: fx.GraphModule, ranks: dict[str, int]) -> list[_Chain]:
    """Chains maker -> (PReLU | ReLU | pooling | flatten)* -> reader, in which each has one reader.

    A linear layer over the last axis of a map is no maker.
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
                tensors = [name_of(at)]  # its quantizer absorbs it: no codes in front of it
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
    """Largest absolute values (C,) of channels over all batches.

    Args:
        gm: canonical float graph.
        batches: pixels (N,3,H,W).
        wanted: (name of a value, axis of its channels).
        what: name of the work for ``progress``.
        progress: called with (what, done, total).
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
