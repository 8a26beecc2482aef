"""Pairs of transpositions go, and what stands between them computes the same."""

from __future__ import annotations

import torch
from torch import fx

from efquantface.graph import ops
from efquantface.graph.channels import channels_first
from efquantface.graph.graph import INPUT, GraphBuilder, module_nodes


def graph(*between: ops.Operator) -> fx.GraphModule:
    builder = GraphBuilder()
    at = builder.add("conv", ops.Conv2d(3, 4, 3), INPUT)
    at = builder.add("last", ops.Transpose((0, 2, 3, 1)), at)
    for index, module in enumerate(between):
        at = builder.add(f"m{index}", module, at)
    return builder.finish(builder.add("first", ops.Transpose((0, 3, 1, 2)), at)).eval()


def kinds(gm: fx.GraphModule) -> list[str]:
    x = torch.randn(2, 3, 6, 6)
    before = gm(x)
    found = channels_first(gm)
    torch.testing.assert_close(found(x), before)
    return [type(m).__name__ for _, m in module_nodes(found)]


def test_values_per_channel_are_turned() -> None:
    torch.manual_seed(0)
    scale, shift = ops.Scale((4,)), ops.Shift((1, 4))
    torch.nn.init.normal_(scale.weight)
    torch.nn.init.normal_(shift.bias)
    found = kinds(graph(scale, ops.Clamp(0.0, None), shift, ops.Function("tanh")))
    assert found == ["Conv2d", "Affine", "Clamp", "Affine", "Function"]


def test_what_needs_the_last_axis_keeps_them() -> None:
    assert "Transpose" in kinds(graph(ops.LayerNorm(4, 1e-5)))


def test_values_per_place_are_turned() -> None:
    torch.manual_seed(0)
    scale, shift = ops.Scale((4, 1)), ops.Shift((4, 4, 4))
    torch.nn.init.normal_(scale.weight)
    torch.nn.init.normal_(shift.bias)
    assert kinds(graph(scale, shift)) == ["Conv2d", "Scale", "Shift"]


def test_branches_that_join_are_turned() -> None:
    """A block whose sum, product, parts and means have their channels last."""
    builder = GraphBuilder()
    at = builder.add("conv", ops.Conv2d(3, 4, 3), INPUT)
    last = builder.add("last", ops.Transpose((0, 2, 3, 1)), at)
    bent = builder.add("bent", ops.Clamp(0.0, None), last)
    inner = builder.add("inner", ops.Transpose((0, 3, 1, 2)), bent)
    other = builder.add("other", ops.Conv2d(4, 4, 1), inner)
    again = builder.add("again", ops.Transpose((0, 2, 3, 1)), other)
    total = builder.add("total", ops.Add(), bent, again)
    gate = builder.add("gate", ops.Reduce("mean", (1, 2), True), total)
    level = builder.add("level", ops.Reduce("max", (3,), True), total)
    gated = builder.add("gated", ops.Multiply(), total, gate)
    gated = builder.add("gated2", ops.Multiply(), gated, level)
    part = builder.add("part", ops.Slice(2, 0, 2), gated)
    whole = builder.add("whole", ops.Concat(2), gated, part)
    gm = builder.finish(builder.add("flat", ops.Reduce("mean", (1, 2), False), whole))
    assert kinds(gm) == [
        *("Conv2d", "Clamp", "Conv2d", "Add", "GlobalAvgPool", "Reduce", "Multiply", "Multiply"),
        *("Slice", "Concat", "GlobalAvgPool", "Flatten"),
    ]


def test_what_would_only_move_stays() -> None:
    builder = GraphBuilder()
    at = builder.add("conv", ops.Conv2d(3, 4, 3), INPUT)
    last = builder.add("last", ops.Transpose((0, 2, 3, 1)), at)
    bent = builder.add("bent", ops.Clamp(0.0, None), last)
    gm = builder.finish(builder.add("norm", ops.LayerNorm(4, 1e-5), bent))
    assert kinds(gm) == ["Conv2d", "Transpose", "Clamp", "LayerNorm"]
