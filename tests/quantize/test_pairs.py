"""Pairs of weights: bounds against brute force, layers, rounding and training keep the rule."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from conftest import SmallFaceNet, make_faces, randomize
from efquantface.contract import FaceContract
from efquantface.graph.graph import module_nodes
from efquantface.importers.load import load_model
from efquantface.quantize.layers import QuantConv2d, QuantLinear
from efquantface.quantize.pairs import (
    INT16,
    PairClamp,
    clamp_codes,
    largest_pairs,
    pair_limit,
    reserved_bounds,
)
from efquantface.quantize.placement import quantize, quantizer_before
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.reconstruct import reconstruct
from efquantface.quantize.scheme import Scheme

CODES = st.lists(st.integers(-127, 127), min_size=1, max_size=9)


def worst_pair(row: list[int]) -> int:
    """The largest sum of two absolute values of one sign, or of one value alone, by trying all."""
    alone = max(abs(v) for v in row)
    pairs = [abs(v) + abs(w) for v, w in itertools.combinations(row, 2) if v * w >= 0]
    return max([alone, *pairs])


@given(CODES)
def test_largest_pairs_against_all_pairs(row: list[int]) -> None:
    assert int(largest_pairs(torch.tensor([row], dtype=torch.float32))) == worst_pair(row)


@given(CODES, st.integers(100, 254))
def test_clamped_codes_keep_the_rule_and_change_nothing_else(row: list[int], limit: int) -> None:
    codes = torch.tensor([row], dtype=torch.float32)
    clamped = clamp_codes(codes, 127, limit)
    assert worst_pair([int(v) for v in clamped[0]]) <= limit
    assert bool((clamped.abs() <= codes.abs()).all())
    assert bool((clamped * codes >= 0).all())
    if worst_pair(row) <= limit:
        assert torch.equal(clamped, codes)


@given(CODES, st.integers(100, 254), st.floats(0.3, 3.0))
def test_clamping_at_many_scales_is_clamping(row: list[int], limit: int, scale: float) -> None:
    """Equal but for which of two equal codes has to give way."""
    weight = torch.tensor([row], dtype=torch.float32)
    codes = torch.round(weight / scale)
    found = PairClamp(weight, 127, limit)(codes, torch.tensor([[scale]]))
    expected = clamp_codes(codes, 127, limit)
    assert sorted(found[0].tolist()) == sorted(expected[0].tolist())


@given(CODES, st.integers(100, 254))
def test_whatever_lies_within_reserved_bounds_keeps_the_rule(row: list[int], limit: int) -> None:
    low, high = reserved_bounds(torch.tensor([row], dtype=torch.float32), limit)
    for bound in (low, high):
        assert worst_pair([int(v) for v in bound[0]]) <= limit


def test_limit_of_a_pair_is_where_int16_ends() -> None:
    assert pair_limit(255, 8) == 128
    assert 255 * 128 <= INT16 < 255 * 129
    assert pair_limit(255, 7) is None  # 255 * 126
    assert pair_limit(63, 8) is None  # six-bit activations
    assert pair_limit(128, 8) is None  # signed activations: 128 * 254


@pytest.mark.parametrize("scheme", ["w8a8", "w8a6"])
@pytest.mark.parametrize("rebuild", [False, True])
def test_students_keep_the_rule(contract: FaceContract, scheme: str, rebuild: bool) -> None:
    """Codes of every layer, depthwise ones too, times the largest code they meet, fit into int16."""
    torch.manual_seed(0)
    network = randomize(SmallFaceNet())
    with torch.no_grad():  # weights with two outliers of one sign in every channel
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.weight[0].numel() > 1:
                module.weight.flatten(1)[:, :2] += 3 * module.weight.abs().max()
    model = load_model(network, contract=contract)
    pixels = torch.from_numpy(contract.pixels(make_faces(12).images)).float()
    student = quantize(model, Scheme.parse(scheme))
    set_ranges(student.graph, [pixels])
    if rebuild:
        reconstruct(student.graph, model.graph, pixels)
    optimizer = torch.optim.Adam(student.graph.parameters(), lr=0.05)
    before = student.graph(pixels).detach()
    for _ in range(3):
        optimizer.zero_grad()
        (student.graph(pixels) - before.roll(1, 0)).square().mean().backward()
        optimizer.step()
        _check(student.graph)
    full = quantize(model, Scheme.parse(scheme).__class__(full_range=True))
    set_ranges(full.graph, [pixels])
    with pytest.raises(AssertionError):
        _check(full.graph)


def _check(graph: torch.fx.GraphModule) -> None:
    for node, module in module_nodes(graph):
        if isinstance(module, QuantConv2d | QuantLinear):
            codes = module.weight_codes()[0].flatten(1).numpy().astype(int)
            largest = quantizer_before(graph, node).largest_code
            assert max(worst_pair(list(row)) for row in codes) * largest <= INT16, node.target
            weight = module.quantized_weight().detach().numpy()
            scale = module.scale().detach().numpy().reshape(-1, *(1,) * (weight.ndim - 1))
            np.testing.assert_allclose(weight / scale, module.weight_codes()[0], atol=1e-3)


def test_reconstructed_codes_are_those_that_were_rounded(contract: FaceContract) -> None:
    """What each layer's own limits make of its latent weights is what rounding chose."""
    torch.manual_seed(1)
    model = load_model(randomize(SmallFaceNet()), contract=contract)
    pixels = torch.from_numpy(contract.pixels(make_faces(12).images)).float()
    student = quantize(model, Scheme())
    set_ranges(student.graph, [pixels])
    reconstruct(student.graph, model.graph, pixels)
    for _, module in module_nodes(student.graph):
        if isinstance(module, QuantConv2d | QuantLinear):
            scale = module.scale().view(-1, *(1,) * (module.latent.dim() - 1))
            assert torch.equal((module.weight / scale).round(), module.weight_codes()[0].float())
