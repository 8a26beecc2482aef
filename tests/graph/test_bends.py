"""Functions with a bend are put together, and compute the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx

from efquantface.graph import ops
from efquantface.graph.bends import straighten
from efquantface.graph.graph import INPUT, GraphBuilder, module_nodes

SIZE = 6


def affine(weight: float, bias: float = 0.0) -> ops.Affine:
    made = ops.Affine(4)
    torch.nn.init.constant_(made.weight, weight)
    torch.nn.init.constant_(made.bias, bias)
    return made


def graph(build: Callable[[GraphBuilder, str], str]) -> fx.GraphModule:
    torch.manual_seed(0)
    builder = GraphBuilder()
    start = builder.add("conv", ops.Conv2d(3, 4, 3, padding=1), INPUT)
    return builder.finish(build(builder, start)).eval()


def check(gm: fx.GraphModule) -> list[torch.nn.Module]:
    """The operators behind the convolution, after the rewrite has changed nothing."""
    x = torch.randn(2, 3, SIZE, SIZE)
    before = gm(x)
    straighten(gm, SIZE, SIZE)
    torch.testing.assert_close(gm(x), before)
    return [m for _, m in module_nodes(gm)][1:]


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ((0, None), (None, 6), (0, 6)),
        ((None, 6), (0, None), (0, 6)),
        ((-1, 1), (0, None), (0, 1)),
        ((0, 2), (3, None), (3, 3)),
    ],
)
def test_limits_join(first: tuple, second: tuple, joined: tuple) -> None:
    gm = graph(lambda b, x: b.add("b", ops.Clamp(*second), b.add("a", ops.Clamp(*first), x)))
    (limit,) = check(gm)
    assert (limit.low, limit.high) == joined


def test_a_factor_moves_in_front_of_a_limit() -> None:
    gm = graph(lambda b, x: b.add("c", affine(1 / 6, 0.1), b.add("a", ops.Clamp(0.0, 6.0), x)))
    line, limit = check(gm)
    assert isinstance(line, ops.Affine)
    assert (limit.low, limit.high) == pytest.approx((0.1, 1.1))


def test_a_factor_that_turns_the_sign_stays() -> None:
    gm = graph(lambda b, x: b.add("c", affine(-1.0), b.add("a", ops.Clamp(0.0, 6.0), x)))
    assert [type(m) for m in check(gm)] == [ops.Clamp, ops.Affine]


def test_a_factor_of_a_product_goes_to_its_gate() -> None:
    def build(b: GraphBuilder, x: str) -> str:
        gate = b.add("gate", ops.Clamp(0.0, 6.0), b.add("three", affine(1.0, 3.0), x))
        return b.add("sixth", affine(1 / 6), b.add("product", ops.Multiply(), x, gate))

    assert [type(m) for m in check(graph(build))][-2:] == [ops.Clamp, ops.Multiply]


def parts(b: GraphBuilder, x: str, positive: float = 1.0) -> str:
    """``positive relu(x) - 0.3 relu(-x)``."""
    up = b.add("up", affine(positive), b.add("relu", ops.Clamp(0.0, None), x))
    down = b.add("down", ops.Clamp(0.0, None), b.add("minus", affine(-1.0), x))
    return b.add("sum", ops.Add(), up, b.add("slope", affine(-0.3), down))


@pytest.mark.parametrize("positive", [1.0, 2.0, -1.0])
def test_slopes_join(positive: float) -> None:
    found = check(graph(lambda b, x: parts(b, x, positive)))
    assert [type(m) for m in found] == [ops.PReLU, ops.Affine][: 1 + (positive != 1)]
    torch.testing.assert_close(found[0].slope, torch.full((4,), 0.3 / positive))


def test_absolute_values_join() -> None:
    def build(b: GraphBuilder, x: str) -> str:
        return b.add(
            "sum", ops.Add(), x, b.add("half", affine(0.5), b.add("a", ops.Function("abs"), x))
        )

    prelu, _ = check(graph(build))
    torch.testing.assert_close(prelu.slope, torch.full((4,), 1 / 3))


def test_what_is_no_prelu_stays() -> None:
    """Residual sums, and sums of a value with itself."""
    residual = graph(lambda b, x: b.add("s", ops.Add(), x, b.add("c", ops.Conv2d(4, 4, 1), x)))
    assert [type(m) for m in check(residual)] == [ops.Conv2d, ops.Add]
    twice = graph(lambda b, x: b.add("s", ops.Add(), x, x))
    assert [type(m) for m in check(twice)] == [ops.Add]
    half = graph(lambda b, x: b.add("s", ops.Add(), x, b.add("m", affine(-1.0), x)))
    check(half)
