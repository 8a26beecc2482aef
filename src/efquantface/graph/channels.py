"""Removal of transpositions that cancel. What is between them works with channels in front.

TensorFlow keeps channels last. Exporters transpose maps, add or limit values, and transpose them back.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from efquantface.graph import ops
from efquantface.graph.graph import insert_after, module_nodes, module_of, skip, tidy

_LAST, _FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def channels_first(gm: fx.GraphModule) -> fx.GraphModule:
    """The graph without pairs of transpositions to (N,H,W,C) and back. The given graph is changed.

    First pairs with a chain between them are removed. Then branches, sums and poolings are rewritten
    where that removes more transpositions.
    """
    while any(_cancel(gm, node, module) for node, module in module_nodes(gm)):
        tidy(gm)
    tidy(gm)
    if not _count(gm):
        return gm
    sunk = _sunk(gm)
    return sunk if _count(sunk) < _count(gm) else gm


def _count(gm: fx.GraphModule) -> int:
    return sum(_is(m, _LAST) or _is(m, _FIRST) for _, m in module_nodes(gm))


def _cancel(gm: fx.GraphModule, node: fx.Node, module: nn.Module) -> bool:
    """Remove the pair that begins at ``node``; False where there is none."""
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
    """The operator for values without the transposition in front; None where it depends on the axes."""
    if isinstance(module, ops.Clamp | ops.Sigmoid | ops.Gelu | ops.Function):
        return module
    if not to_last or not isinstance(module, ops.Scale | ops.Shift):
        return None
    values = (module.weight if isinstance(module, ops.Scale) else module.bias).detach()
    if values.numel() == 1:
        return module
    if values.shape[-1:] == values.flatten().shape:
        return _affine(values.flatten(), isinstance(module, ops.Scale))
    return _spread(values, type(module))


@torch.no_grad()
def _spread(values: Tensor, kind: type[ops.Scale | ops.Shift]) -> ops.Scale | ops.Shift:
    """An operator whose values differ from place to place, from (H,W,C) to (C,H,W)."""
    turned = values.reshape((1,) * (3 - values.dim()) + tuple(values.shape)).permute(2, 0, 1)
    made = kind(turned.shape)
    (made.weight if isinstance(made, ops.Scale) else made.bias).copy_(turned)
    return made


@torch.no_grad()
def _affine(values: Tensor, is_factor: bool) -> ops.Affine:
    affine = ops.Affine(len(values))
    (affine.weight if is_factor else affine.bias).copy_(values)
    return affine


def _sunk(gm: fx.GraphModule) -> fx.GraphModule:
    """A copy with transpositions to channels last moved as far back as possible, where they cancel."""
    made = copy.deepcopy(gm)
    progress = True
    while progress:
        last = [node for node, m in module_nodes(made) if _is(m, _LAST)]
        readers = [(node, user) for node in last for user in list(node.users)]
        progress = any(_sink(made, node, user) for node, user in readers)
        tidy(made)
    return made


def _is(module: nn.Module | None, order: tuple[int, ...]) -> bool:
    return isinstance(module, ops.Transpose) and module.order == order


def _sink(gm: fx.GraphModule, node: fx.Node, user: fx.Node) -> bool:
    """Move a transposition behind one of its readers; False where that is not possible."""
    module = module_of(gm, user)
    if _is(module, _FIRST):
        source = node.args[0]
        assert isinstance(source, fx.Node)
        user.replace_all_uses_with(source)
        gm.graph.erase_node(user)
        return True
    sources = [n for n in user.args if isinstance(n, fx.Node)]
    if module is None or not all(_is(module_of(gm, n), _LAST) for n in sources):
        return False
    turned, stays = _before(module)
    if turned is None:
        return False
    gm.set_submodule(str(user.target), turned)
    user.args = tuple(n.args[0] for n in sources)
    if stays:
        insert_after(gm, user, f"{user.target}_last", ops.Transpose(_LAST))
    else:
        insert_after(gm, user, f"{user.target}_flat", ops.Flatten())
    return True


def _before(module: nn.Module) -> tuple[nn.Module | None, bool]:
    """The operator for channels first (or None), and whether its result has the same axes or is flat."""
    if isinstance(module, ops.Add | ops.Multiply):
        return module, True
    if isinstance(module, ops.Concat | ops.Slice | ops.Pick):
        turned = copy.deepcopy(module)
        turned.axis = _LAST[module.axis]
        return turned, True
    if isinstance(module, ops.Reduce):
        axes = sorted(_LAST[axis] for axis in module.axes)
        if not module.keep and axes != [2, 3]:
            return None, True
        mean = module.reduction == "mean" and axes == [2, 3]
        made = ops.GlobalAvgPool() if mean else ops.Reduce(module.reduction, axes, True)
        return made, module.keep
    return _turned(module, True), True
