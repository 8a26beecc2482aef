"""Which operators end a network in float, and the length of what they give."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from efquantface.graph import ops
from efquantface.graph.graph import INPUT, GraphBuilder, name_of, shapes
from efquantface.quantize.ending import ending, rescale_embedding
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.layers import QuantAffine, QuantLinear

SIZE = 8


def _graph(*steps: tuple[str, nn.Module]) -> fx.GraphModule:
    builder, at = GraphBuilder(), INPUT
    for name, module in steps:
        at = builder.add(name, module, at)
    return builder.finish(at)


CONV = ("conv", ops.Conv2d(3, 4, 3, padding=1))
POOL, FLAT = ("pool", ops.GlobalAvgPool()), ("flat", ops.Flatten())


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ((CONV, POOL, FLAT, ("fc", ops.Linear(4, 5))), ["fc"]),
        (
            (CONV, POOL, FLAT, ("fc", ops.Linear(4, 5)), ("norm", ops.L2Normalize(0.0))),
            ["fc", "norm"],
        ),
        # a layer in between computes in integers
        (
            (
                CONV,
                FLAT,
                ("a", ops.Linear(256, 4)),
                ("relu", ops.Clamp(0, None)),
                ("b", ops.Linear(4, 4)),
            ),
            ["b"],
        ),
        ((CONV, ("prelu", ops.PReLU(4)), POOL, FLAT), ["pool", "flat"]),  # of a map: integers
        ((CONV, ("whole", ops.Conv2d(4, 6, SIZE)), FLAT), ["flat"]),
        ((CONV, FLAT), ["flat"]),  # the whole map is the embedding
    ],
)
def test_the_end_is_behind_the_last_layers(steps: tuple, wanted: list[str]) -> None:
    gm = _graph(*steps)
    found = [name_of(n) for n in ending(gm, shapes(gm, SIZE, SIZE))]
    assert found == wanted


def _student(end: list[tuple[str, nn.Module]]) -> fx.GraphModule:
    torch.manual_seed(0)
    layer = QuantLinear(4, 6, 8)
    layer.set_weight(torch.randn(6, 4), torch.randn(6))
    layer.set_scale(torch.full((6,), 0.02))
    layer.refresh_bias(0.01)
    return _graph(
        POOL, FLAT, ("pick", ops.Reshape((3,))), ("up", ops.Linear(3, 4)), ("fc", layer), *end
    )


@pytest.mark.parametrize(
    ("end", "done"),
    [
        ([], True),
        ([("relu", ops.Clamp(0, None))], True),
        ([("prelu", ops.PReLU(6))], True),
        ([("codes", ActivationQuantizer())], True),
        ([("codes", ActivationQuantizer(8, True, 6.0))], False),  # a ReLU6's 6 stays
        ([("cut", ops.Clamp(0, 1))], False),
        ([("norm", ops.L2Normalize(0.0))], False),
        ([("sigmoid", ops.Sigmoid())], False),
        ([("affine", QuantAffine.identity(6)), ("relu", ops.Clamp(None, 0))], True),
    ],
)
def test_the_embedding_gets_a_factor_where_it_can(
    end: list[tuple[str, nn.Module]], done: bool
) -> None:
    gm, x = _student(end), torch.rand(5, 3, SIZE, SIZE) * 20
    for module in gm.modules():
        if isinstance(module, ActivationQuantizer):
            module.set_range(-20, 20)
    with torch.no_grad():
        before = gm(x)
        assert rescale_embedding(gm, 1.5) == done
        torch.testing.assert_close(gm(x), before * 1.5 if done else before, rtol=1e-4, atol=1e-4)
