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
    channels_first(gm)
    torch.testing.assert_close(gm(x), before)
    return [type(m).__name__ for _, m in module_nodes(gm)]


def test_values_per_channel_are_turned() -> None:
    torch.manual_seed(0)
    scale, shift = ops.Scale((4,)), ops.Shift((1, 4))
    torch.nn.init.normal_(scale.weight)
    torch.nn.init.normal_(shift.bias)
    found = kinds(graph(scale, ops.Clamp(0.0, None), shift, ops.Function("tanh")))
    assert found == ["Conv2d", "Affine", "Clamp", "Affine", "Function"]


def test_what_needs_the_last_axis_keeps_them() -> None:
    assert "Transpose" in kinds(graph(ops.LayerNorm(4, 1e-5)))
    assert "Transpose" in kinds(graph(ops.Scale((4, 1))))
