"""Weights are drawn to their codes: by how much, and which not."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from efquantface.quantize.damping import draw_to_codes
from efquantface.quantize.layers import QuantConv2d, QuantLinear

_SCALE = 0.5


def _layer(weights: list[float], bits: int = 4) -> QuantLinear:
    """Of one channel, with codes from -7 to 7."""
    layer = QuantLinear(len(weights), 1, bits=bits)
    layer.set_weight(torch.tensor([weights]), torch.zeros(1))
    layer.set_scale(torch.full((1,), _SCALE))
    return layer


def test_the_step_is_whole_at_the_border_and_nothing_in_the_middle() -> None:
    weights = [1.0, 1.125, -1.125, 1.2499, 3.0]  # in codes: 2, 2.25, -2.25, 2.4998, 6
    layer = _layer(weights)
    before = layer.latent.detach().numpy().copy()
    draw_to_codes(nn.Sequential(layer), 0.01)
    moved = layer.latent.detach().numpy() - before
    np.testing.assert_allclose(moved, [[0, -0.005, 0.005, -0.01, 0]], atol=1e-5)


def test_a_weight_beyond_the_last_code_comes_back_by_a_whole_step() -> None:
    layer = _layer([6.0, -6.0])  # 12 codes
    draw_to_codes(nn.Sequential(layer), 0.01)
    np.testing.assert_allclose(layer.weight.detach(), [[6 * 0.99, -6 * 0.99]], rtol=1e-6)


def test_many_steps_end_at_the_codes() -> None:
    torch.manual_seed(0)
    layer = QuantConv2d(4, 6, (3, 3), (1, 1), (0, 0), (1, 1), 1, bits=4)
    layer.set_weight(torch.randn(6, 4, 3, 3), torch.zeros(6))
    layer.set_scale(torch.full((6,), 0.3))
    codes = layer.weight_codes()[0]
    for _ in range(1000):
        draw_to_codes(nn.Sequential(layer), 0.01)
    assert torch.equal(layer.weight_codes()[0], codes)
    torch.testing.assert_close(layer.ratio(), codes.float(), atol=0.02, rtol=0)


def test_no_step_passes_the_code() -> None:
    layer = _layer([1.2, 7.0])
    draw_to_codes(nn.Sequential(layer), 100.0)
    np.testing.assert_allclose(
        layer.weight.detach(), [[1.0, 6.75]], rtol=1e-6
    )  # 14 codes: back by half a one


def test_float_layers_and_eight_bits_stay() -> None:
    layer = _layer([1.1, 2.2])
    layer.enabled = False
    graph = nn.Sequential(layer, nn.Linear(1, 2), _layer([1.1, 2.2], bits=8))
    before = [p.detach().clone() for p in graph.parameters()]
    draw_to_codes(graph, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, graph.parameters(), strict=True))
