"""Residual blocks that can be removed whole. Blocks are the network's depth, channels its width.

At batch 1, calling an operator costs about as much time as its multiplications. So a network with fewer
blocks can be faster than one with fewer channels and the same number of multiplications.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass

from torch import fx, nn

from efquantface.graph import ops
from efquantface.graph.graph import module_nodes, module_of, name_of, shapes, skip, tidy


@dataclass(frozen=True)
class Block:
    """A residual block with an identity shortcut.

    Attributes:
        name: of its sum.
        shortcut: the operand of the sum (0 or 1) that is the block's input.
        inside: names of its operators, without the sum.
    """

    name: str
    shortcut: int
    inside: tuple[str, ...]


@dataclass(frozen=True)
class Shallower:
    """A graph without some blocks.

    Attributes:
        graph: the smaller float graph.
        stands_for: by the name of a value that replaces a removed block's: the replaced value's name
            in the whole graph.
    """

    graph: fx.GraphModule
    stands_for: dict[str, str]


def blocks_of(gm: fx.GraphModule, height: int, width: int) -> list[Block]:
    """The residual blocks of a float graph that can be removed, in order of execution.

    A block is the sum of a value and of what layers compute from that value alone. Both have the same
    shape, and nothing else reads what is inside the block. A block with a layer in its shortcut, or with
    a shortcut that repeats a smaller value, cannot be removed.

    Args:
        gm: canonical float graph.
        height, width: of a crop.
    """
    found = []
    known = shapes(gm, height, width)
    places = {node: place for place, node in enumerate(gm.graph.nodes)}
    for node, module in module_nodes(gm):
        if not isinstance(module, ops.Add) or len(node.all_input_nodes) != 2:
            continue
        for shortcut, branch in enumerate(reversed(node.all_input_nodes)):
            kept = node.all_input_nodes[shortcut]
            inside = _between(branch, kept)
            if (
                any(isinstance(module_of(gm, n), ops.Conv2d | ops.Linear) for n in inside)
                and all(set(n.users) <= {*inside, node} for n in inside)
                and known[name_of(kept)] == known[name_of(node)]
            ):
                names = tuple(name_of(n) for n in sorted(inside, key=places.__getitem__))
                found.append(Block(name_of(node), shortcut, names))
                break
    return found


def _between(branch: fx.Node, start: fx.Node) -> set[fx.Node]:
    """The nodes between ``start`` and ``branch``, with ``branch``; empty if they have other inputs."""
    inside: set[fx.Node] = set()
    left = [branch]
    while left:
        node = left.pop()
        if node is start or node in inside:
            continue
        if not node.all_input_nodes:
            return set()
        inside.add(node)
        left += node.all_input_nodes
    return inside


def without_blocks(gm: fx.GraphModule, blocks: Collection[Block]) -> Shallower:
    """A copy of a graph without these blocks. A block's input replaces its output.

    A ReLU after the sum is removed, too, if the block's input went through an equal one.

    Args:
        gm: canonical float graph, which is not changed.
        blocks: of :func:`blocks_of`.
    """
    smaller = copy.deepcopy(gm)
    gone = {block.name: block for block in blocks}
    stands_for: dict[str, str] = {}
    for node, _ in module_nodes(smaller):
        if name_of(node) in gone:
            kept = node.args[gone[name_of(node)].shortcut]
            assert isinstance(kept, fx.Node)
            node.replace_all_uses_with(kept)
            stands_for[name_of(kept)] = name_of(node)
    for node, module in module_nodes(smaller):
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or not _again(module, module_of(smaller, source)):
            continue
        came_from = source.args[0]
        if isinstance(came_from, fx.Node) and len(came_from.users) == 1:
            stands_for[name_of(came_from)] = stands_for.get(name_of(source), name_of(source))
        stands_for[name_of(source)] = stands_for.pop(name_of(node), name_of(node))
        skip(smaller, node)
    return Shallower(tidy(smaller).eval(), stands_for)


def _again(module: nn.Module, before: nn.Module | None) -> bool:
    """Whether an operator clamps values that ``before`` has clamped to the same limits."""
    if not isinstance(module, ops.Clamp) or not isinstance(before, ops.Clamp):
        return False
    return (module.low, module.high) == (before.low, before.high)
