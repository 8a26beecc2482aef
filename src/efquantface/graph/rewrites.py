"""Rewrites of canonical graphs: folded affines, linear tails, PReLUs in parts."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, fx, nn

from efquantface.graph import ops
from efquantface.graph.bends import straighten
from efquantface.graph.channels import channels_first
from efquantface.graph.graph import (
    add_module,
    insert_after,
    module_nodes,
    module_of,
    name_of,
    shapes,
    tidy,
)


def canonicalize(gm: fx.GraphModule, height: int, width: int) -> fx.GraphModule:
    """Fold what can be folded exactly. The result computes the same embedding with fewer operators.

    BatchNorm and other affines go into the convolution or linear layer in front of them. Or they go into
    the one behind, if it has no zero padding: with padding that would be wrong at the border. A 1x1
    convolution on a 1x1 map becomes a linear layer. Piecewise linear functions are joined
    (:mod:`bends`).
    """
    gm = straighten(channels_first(gm), height, width)
    _fold_affines(gm, height, width)
    _fold_mixed_pixels(gm)
    _linear_tail(gm, height, width)
    _fold_affines(gm, height, width)
    return tidy(gm)


def prepend_normalize(
    gm: fx.GraphModule, mean: tuple[float, ...], std: tuple[float, ...]
) -> fx.GraphModule:
    """Put ``(x - mean) / std`` in front, so that the graph takes pixels 0..255."""
    placeholder = next(n for n in gm.graph.nodes if n.op == "placeholder")
    insert_after(gm, placeholder, "normalize", ops.Normalize(mean, std))
    return tidy(gm)


def as_maps(
    gm: fx.GraphModule, height: int, width: int, kept: Collection[fx.Node] = ()
) -> fx.GraphModule:
    """Let per-channel operators work on maps (N,C,H,W): (N,C) becomes (N,C,1,1).

    Integer kernels multiply the channels of maps only. Operators in ``kept`` are not changed.
    """
    found = shapes(gm, height, width)
    for node, module in module_nodes(gm):
        shape = found[name_of(node)]
        if isinstance(module, ops.Affine | ops.PReLU) and len(shape) != 4 and node not in kept:
            between_maps(gm, node, node, shape)
    return tidy(gm)


def between_maps(
    gm: fx.GraphModule, first: fx.Node, last: fx.Node, shape: tuple[int, ...]
) -> fx.Node:
    """Let nodes ``first`` to ``last`` work on maps. Returns a node with the result in ``shape``."""
    source = first.args[0]
    assert isinstance(source, fx.Node)
    wide = ops.Reshape((shape[1], max(torch.Size(shape[2:]).numel(), 1), 1))
    with gm.graph.inserting_before(first):
        name = add_module(gm, f"{first.target}_map", wide)
        first.replace_input_with(source, gm.graph.call_module(name, (source,)))
    return insert_after(gm, last, f"{last.target}_values", ops.Reshape(shape[1:]))


def split_prelu(gm: fx.GraphModule, kept: Collection[fx.Node] = ()) -> fx.GraphModule:
    """Write PReLUs as ``x + (slope - 1) * min(x, 0)``: exact, in operators with integer forms.

    Where no slope is above 1, this is ``x + max((slope - 1) * x, 0)``; a quantizer absorbs the maximum.
    PReLUs in ``kept`` stay whole.
    """
    for node, module in module_nodes(gm):
        if not isinstance(module, ops.PReLU) or node in kept:
            continue
        source = node.args[0]
        assert isinstance(source, fx.Node)
        name = str(node.target)
        product = ops.Affine(module.channels)
        with torch.no_grad():
            product.weight.copy_(module.slope - 1)
        product.bias.requires_grad_(False)  # a PReLU has no bias
        parts: list[tuple[str, nn.Module]] = [(f"{name}_product", product)]
        if bool((module.slope <= 1).all()):
            parts.append((f"{name}_positive", ops.Clamp(0.0, None)))
        else:
            parts.insert(0, (f"{name}_negative", ops.Clamp(None, 0.0)))
        at = source
        with gm.graph.inserting_before(node):
            for part, child in parts:
                at = gm.graph.call_module(add_module(gm, part, child), (at,))
            total = gm.graph.call_module(add_module(gm, f"{name}_sum", ops.Add()), (source, at))
        node.replace_all_uses_with(total)
        gm.graph.erase_node(node)
    return tidy(gm)


def _fold_affines(gm: fx.GraphModule, height: int, width: int) -> None:
    """Fold affines one at a time until none is left. Each fold changes the graph."""
    found = shapes(gm, height, width)
    while any(
        (isinstance(module, ops.Affine) and _fold_one(gm, node, module, found))
        or (isinstance(module, ops.Scale | ops.Shift) and _fold_last(gm, node, module))
        for node, module in module_nodes(gm)
    ):
        pass


@torch.no_grad()
def _fold_last(gm: fx.GraphModule, node: fx.Node, module: ops.Scale | ops.Shift) -> bool:
    """Fold a scale or shift of the last axis into the linear layer or LayerNorm in front of it."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    before = module_of(gm, source)
    if len(source.users) != 1 or not isinstance(before, ops.Linear | ops.LayerNorm):
        return False
    values = module.weight if isinstance(module, ops.Scale) else module.bias
    if (
        values.numel() != before.bias.numel()
        or not values.dim()
        or values.shape[-1] != values.numel()
    ):
        return False
    if isinstance(module, ops.Shift):
        before.bias.add_(values.flatten())
    else:
        factor = values.flatten()
        before.weight.mul_(factor.view(-1, *(1,) * (before.weight.dim() - 1)))
        before.bias.mul_(factor)
    node.replace_all_uses_with(source)
    gm.graph.erase_node(node)
    return True


@torch.no_grad()
def _fold_one(
    gm: fx.GraphModule, node: fx.Node, affine: ops.Affine, found: dict[str, tuple[int, ...]]
) -> bool:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    before = module_of(gm, source)
    if isinstance(before, ops.Linear) and len(found.get(str(source.target), ())) != 2:
        return False  # the affine's channels are not this layer's outputs
    if len(source.users) == 1 and before is not None and _fold_backward(before, affine):
        node.replace_all_uses_with(source)
        gm.graph.erase_node(node)
        return True
    if len(node.users) != 1:
        return False
    user = next(iter(node.users))
    after = module_of(gm, user)
    if isinstance(after, ops.Linear) and len(found.get(str(source.target), ())) != 2:
        return False
    spread = 1
    if isinstance(after, ops.Flatten) and len(user.users) == 1:
        shape = found.get(str(source.target), ())
        spread = shape[2] * shape[3] if len(shape) == 4 else 1
        after = module_of(gm, next(iter(user.users)))
        if not isinstance(after, ops.Linear):
            return False
    if after is not None and _fold_forward(after, affine, spread):
        node.replace_all_uses_with(source)
        gm.graph.erase_node(node)
        return True
    return False


def _fold_backward(before: nn.Module, affine: ops.Affine) -> bool:
    """Fold an affine into the layer in front of it; ``before`` is changed in place."""
    weight, bias = affine.weight, affine.bias
    if isinstance(before, ops.Conv2d | ops.Linear):
        assert before.bias is not None
        before.weight.mul_(weight.view(-1, *(1,) * (before.weight.dim() - 1)))
        before.bias.mul_(weight).add_(bias)
        return True
    if isinstance(before, ops.Affine):
        before.weight.mul_(weight)
        before.bias.mul_(weight).add_(bias)
        return True
    if isinstance(before, ops.Normalize) and bool((weight > 0).all()):
        # (x - m) / s * w + b = (x - (m - b s / w)) / (s / w)
        before.mean.sub_(bias * before.std / weight)
        before.std.div_(weight)
        return True
    return False


def _fold_forward(after: nn.Module, affine: ops.Affine, spread: int) -> bool:
    """Fold an affine into the layer that reads it. That is exact only without zero padding."""
    if isinstance(after, ops.Linear):
        weight = affine.weight.repeat_interleave(spread)
        bias = affine.bias.repeat_interleave(spread)
        after.bias.add_(after.weight @ bias)
        after.weight.mul_(weight)
        return True
    if isinstance(after, ops.Conv2d) and not any(int(p) for p in after.padding):
        assert after.bias is not None
        weight = _by_input_channel(affine.weight, after)
        bias = _by_input_channel(affine.bias, after)
        after.bias.add_((after.weight * bias).sum(dim=(1, 2, 3)))
        after.weight.mul_(weight)
        return True
    return False


def _by_input_channel(values: Tensor, conv: ops.Conv2d) -> Tensor:
    """Values per input channel, in the layout of the weight of a (grouped) convolution."""
    grouped = values.view(conv.groups, 1, -1)
    rows = conv.out_channels // conv.groups
    return grouped.expand(-1, rows, -1).reshape(conv.out_channels, -1, 1, 1)


@torch.no_grad()
def _fold_mixed_pixels(gm: fx.GraphModule) -> None:
    """Fold a mix of the image's channels (grey) into the convolutions that read it.

    A mix has no bias, so zeros of padding stay zeros and this is exact.
    """
    for node, mixed in module_nodes(gm):
        if not _mixes_pixels(gm, node, mixed):
            continue
        assert isinstance(mixed, ops.Conv2d)
        readers = [(user, module_of(gm, user)) for user in node.users]
        if not all(isinstance(m, ops.Conv2d) and m.groups == 1 for _, m in readers):
            continue
        for user, conv in readers:
            assert isinstance(conv, ops.Conv2d)
            weight = torch.einsum(
                "ochw,ci->oihw", conv.weight.double(), mixed.weight[..., 0, 0].double()
            )
            attrs = ops.conv_attrs(conv)
            kept = {k: attrs[k] for k in ("stride", "padding", "dilation", "groups")}
            gm.set_submodule(str(user.target), ops.conv_from(weight.float(), conv.bias, **kept))
        node.replace_all_uses_with(node.all_input_nodes[0])
        gm.graph.erase_node(node)
    tidy(gm)


def _mixes_pixels(gm: fx.GraphModule, node: fx.Node, module: nn.Module) -> bool:
    """Whether a node gives shares of the image's channels and does nothing else."""
    if (
        not isinstance(module, ops.Conv2d)
        or module.kernel_size != (1, 1)
        or module.in_channels != 3
    ):
        return False
    plain = (
        module.stride == (1, 1) and module.groups == 1 and not any(int(p) for p in module.padding)
    )
    if not plain or bool(module.bias.any()):  # type: ignore[union-attr]
        return False
    at = node.all_input_nodes[0]
    while isinstance(module_of(gm, at), ops.Slice | ops.Pick):
        at = at.all_input_nodes[0]
    return at.op == "placeholder" or isinstance(module_of(gm, at), ops.Normalize)


@torch.no_grad()
def _linear_tail(gm: fx.GraphModule, height: int, width: int) -> None:
    """Write a 1x1 convolution on a 1x1 map and its flatten as a flatten and a linear layer."""
    found = shapes(gm, height, width)
    for node, module in module_nodes(gm):
        if not isinstance(module, ops.Conv2d) or len(node.users) != 1 or module.groups != 1:
            continue
        user = next(iter(node.users))
        source = node.args[0]
        assert isinstance(source, fx.Node)
        shape = found.get(str(source.target), ())
        if shape[2:] != tuple(module.kernel_size) or found[str(node.target)][2:] != (1, 1):
            continue
        if not isinstance(module_of(gm, user), ops.Flatten) or any(int(p) for p in module.padding):
            continue
        linear = ops.linear_from(module.weight.flatten(1), module.bias)
        user.replace_input_with(node, source)
        insert_after(gm, user, f"{node.target}_linear", linear)
        gm.graph.erase_node(node)
        found = shapes(tidy(gm), height, width)
