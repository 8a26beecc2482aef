"""Channels at the borders of islands: every reader is scaled as it reads, the embedding stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from efquantface.graph import ops
from efquantface.graph.graph import INPUT, GraphBuilder, module_nodes
from efquantface.quantize.borders import equalize_borders

READERS = {
    "dense": ops.Conv2d(8, 6, 3),
    "depthwise": ops.Conv2d(8, 8, 3, groups=8),
    "depthwise multiplier": ops.Conv2d(8, 24, 3, groups=8),
    "grouped": ops.Conv2d(8, 12, 3, groups=4),
}


@pytest.mark.parametrize("name", READERS)
def test_readers_behind_a_concat(name: str) -> None:
    torch.manual_seed(0)
    reader = READERS[name]
    builder = GraphBuilder()
    parts = [builder.add(f"part{i}", ops.Conv2d(3, 4, 3), INPUT) for i in range(2)]
    at = builder.add("reader", reader, builder.add("joined", ops.Concat(1), *parts))
    at = builder.add("flat", ops.Flatten(), builder.add("pool", ops.GlobalAvgPool(), at))
    gm = builder.finish(builder.add("fc", ops.Linear(reader.out_channels, 5), at))
    with torch.no_grad():
        gm.part0.weight *= torch.logspace(0, 2, 4).view(-1, 1, 1, 1)
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    before = gm(pixels.float())
    assert equalize_borders(gm, [pixels]) > 0
    torch.testing.assert_close(gm(pixels.float()), before, rtol=1e-4, atol=1e-3)


def test_an_affine_that_only_islands_read_is_computed_in_float() -> None:
    builder = GraphBuilder()
    at = builder.add("conv", ops.Conv2d(3, 4, 3), INPUT)
    line = builder.add("line", ops.Affine(4), builder.add("relu", ops.Clamp(0.0, None), at))
    at = builder.add("bent", ops.Function("tanh"), line)
    at = builder.add("flat", ops.Flatten(), builder.add("pool", ops.GlobalAvgPool(), at))
    gm = builder.finish(builder.add("fc", ops.Linear(4, 5), at))
    nn.init.normal_(gm.line.weight)
    nn.init.normal_(gm.line.bias)
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    before = gm(pixels.float())
    equalize_borders(gm, [pixels])
    torch.testing.assert_close(gm(pixels.float()), before, rtol=1e-4, atol=1e-4)
    assert not [m for _, m in module_nodes(gm) if isinstance(m, ops.Affine)]
