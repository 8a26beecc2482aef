"""Rewrites of piecewise linear functions: limits, slopes by sign, factors between them.

Exporters write a PReLU as ``relu(x) - a relu(-x)``, a ReLU6 as two limits, a gate as
``min(max(x + 3, 0), 6) / 6``. With fewer operators there are fewer quantizers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from efquantface.graph import ops
from efquantface.graph.graph import (
    add_module,
    insert_after,
    module_nodes,
    module_of,
    name_of,
    shapes,
    skip,
    tidy,
)

Shapes = dict[str, tuple[int, ...]]


def straighten(gm: fx.GraphModule, height: int, width: int) -> fx.GraphModule:
    """Join limits, move factors in front of them, and join PReLUs that are written in parts.

    The graph is float and canonical. It is changed in place and computes the same.
    """
    found = shapes(gm, height, width)
    while any(
        _join_limits(gm, node, module)
        or _factor_before_limit(gm, node, module)
        or _factor_before_product(gm, node, module, found)
        for node, module in module_nodes(gm)
    ):
        pass
    _join_slopes(gm, found)
    return tidy(gm)


def _join_limits(gm: fx.GraphModule, node: fx.Node, module: nn.Module) -> bool:
    """Join two limits in sequence."""
    source = _only_source(node)
    if source is None or not isinstance(module, ops.Clamp):
        return False
    before = module_of(gm, source)
    if not isinstance(before, ops.Clamp):
        return False
    low, high = (_limited(v, module) for v in (before.low, before.high))
    low = module.low if low is None else low
    high = module.high if high is None else high
    gm.set_submodule(str(node.target), ops.Clamp(low, high))
    skip(gm, source)
    return True


def _limited(value: float | None, limits: ops.Clamp) -> float | None:
    if value is None:
        return None
    value = value if limits.low is None else max(value, limits.low)
    return value if limits.high is None else min(value, limits.high)


def _factor_before_limit(gm: fx.GraphModule, node: fx.Node, module: nn.Module) -> bool:
    """Write ``min(max(x, l), h) w + b`` as a limit of ``x w + b``, which can be folded."""
    source, line = _only_source(node), _line(module)
    if source is None or line is None:
        return False
    limits = module_of(gm, source)
    if not isinstance(limits, ops.Clamp) or limits.low is None or limits.high is None:
        return False
    factor, offset = line
    moved = ops.Clamp(limits.low * factor + offset, limits.high * factor + offset)
    below = source.args[0]
    assert isinstance(below, fx.Node)
    with gm.graph.inserting_before(source):
        scaled = gm.graph.call_module(str(node.target), (below,))
    source.replace_input_with(below, scaled)
    gm.set_submodule(str(source.target), moved)
    skip(gm, node)
    return True


def _factor_before_product(
    gm: fx.GraphModule, node: fx.Node, module: nn.Module, found: Shapes
) -> bool:
    """Move a factor of ``x * gate`` into a gate that is a limit, and so in front of the limit."""
    source, line = _only_source(node), _line(module)
    if source is None or line is None or line[1]:
        return False
    if not isinstance(module_of(gm, source), ops.Multiply) or source.args[0] is source.args[1]:
        return False
    for gate in source.all_input_nodes:
        limits = module_of(gm, gate)
        if not isinstance(limits, ops.Clamp) or None in (limits.low, limits.high):
            continue
        if len(gate.users) == 1 and name_of(gate) in found:
            channels = found[name_of(gate)][1]
            insert_after(gm, gate, f"{gate.target}_factor", _uniform(line[0], channels))
            skip(gm, node)
            return True
    return False


@torch.no_grad()
def _uniform(factor: float, channels: int) -> ops.Affine:
    affine = ops.Affine(channels)
    affine.weight.fill_(factor)
    return affine


def _line(module: nn.Module) -> tuple[float, float] | None:
    """(factor, offset) of an affine that is equal for all channels with a positive factor; else None."""
    if not isinstance(module, ops.Affine):
        return None
    factor, offset = module.weight[0].item(), module.bias[0].item()
    same = bool((module.weight == factor).all()) and bool((module.bias == offset).all())
    return (factor, offset) if same and factor > 0 else None


def _only_source(node: fx.Node) -> fx.Node | None:
    """The node's only input, if no other node reads it; None otherwise."""
    sources = node.all_input_nodes
    return sources[0] if len(sources) == 1 and len(sources[0].users) == 1 else None


@dataclass(frozen=True)
class _Bent:
    """``positive * max(x, 0) + negative * min(x, 0)``; slopes are one value or one per channel."""

    source: fx.Node
    positive: Tensor
    negative: Tensor


def _join_slopes(gm: fx.GraphModule, found: Shapes) -> None:
    """Join sums of parts of one value, each linear on either side of zero, into a PReLU."""
    bends: dict[fx.Node, _Bent] = {}
    for node, module in module_nodes(gm):
        bent = _bent(node, module, bends, found)
        if bent is None:
            continue
        bends[node] = bent
        if isinstance(module, ops.Add):
            made = _as_prelu(gm, node, bent, found)
            if made is not None:
                bends[made] = bent


def _bent(
    node: fx.Node, module: nn.Module, bends: dict[fx.Node, _Bent], found: Shapes
) -> _Bent | None:
    """A node's value as a line of another value with a bend at zero; None where it is none."""
    one = torch.ones(1)
    sources = [n for n in node.args if isinstance(n, fx.Node)]
    first, *others = (bends.get(n, _Bent(n, one, one)) for n in sources)
    source, p, n = first.source, first.positive, first.negative
    if isinstance(module, ops.Add):
        if len(others) != 1 or others[0].source is not source or sources[0] is sources[1]:
            return None
        return _Bent(source, p + others[0].positive, n + others[0].negative)
    if isinstance(module, ops.Clamp) and (module.low, module.high) == (0, None):
        return _Bent(source, p.clamp(min=0), n.clamp(max=0))
    if isinstance(module, ops.Clamp) and (module.low, module.high) == (None, 0):
        return _Bent(source, p.clamp(max=0), n.clamp(min=0))
    if isinstance(module, ops.Function) and module.function == "abs":
        return _Bent(source, p.abs(), -n.abs())
    if isinstance(module, ops.PReLU):
        slope = module.slope.detach()
        return _Bent(source, torch.where(p > 0, p, slope * p), torch.where(n > 0, slope * n, n))
    factor = _factor(module, len(found.get(name_of(node), ())))
    return None if factor is None else _Bent(source, p * factor, n * factor)


def _factor(module: nn.Module, rank: int) -> Tensor | None:
    """The factor of an operator that only multiplies channels; None for others."""
    if isinstance(module, ops.Affine) and not bool(module.bias.any()):
        return module.weight.detach()
    if isinstance(module, ops.Scale):
        weight = module.weight.detach()
        if weight.numel() == 1 or (weight.dim() == rank - 1 and weight.numel() == len(weight)):
            return weight.flatten()
    return None


@torch.no_grad()
def _as_prelu(gm: fx.GraphModule, node: fx.Node, bent: _Bent, found: Shapes) -> fx.Node | None:
    """Replace a sum by a PReLU; None where it is none."""
    shape = found.get(name_of(bent.source), ())
    if (
        len(shape) < 2
        or bool((bent.positive == 0).any())
        or torch.equal(bent.positive, bent.negative)
    ):
        return None
    positive, negative = (v.expand(shape[1]) for v in (bent.positive, bent.negative))
    prelu = ops.PReLU(shape[1])
    prelu.slope.copy_(negative / positive)
    with gm.graph.inserting_before(node):
        made = gm.graph.call_module(add_module(gm, f"{node.target}_prelu", prelu), (bent.source,))
        if bool((positive != 1).any()):
            affine = ops.Affine(shape[1])
            affine.weight.copy_(positive)
            made = gm.graph.call_module(add_module(gm, f"{node.target}_slope", affine), (made,))
    node.replace_all_uses_with(made)
    gm.graph.erase_node(node)
    return made
