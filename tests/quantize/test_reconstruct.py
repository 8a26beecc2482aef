"""Reconstruction: closer to the teacher than rounding to the nearest, by the mathematics it claims."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.importers.load import load_model
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.reconstruct import _round, reconstruct
from efquantface.quantize.scheme import Scheme


@pytest.mark.parametrize("bits", ["w4a8", "w3a8", "w4a4"])
def test_student_gets_closer(network: nn.Module, contract: FaceContract, bits: str) -> None:
    model = load_model(network, contract=contract)
    pixels = torch.from_numpy(contract.pixels(make_faces(identities=40).images))
    others = torch.from_numpy(contract.pixels(make_faces(seed=5).images))
    nearest = quantize(model, Scheme.parse(bits))
    set_ranges(nearest.graph, [pixels])
    rebuilt = copy.deepcopy(nearest)
    before = {n: p.clone() for n, p in model.graph.named_parameters()}
    reconstruct(rebuilt.graph, model.graph, pixels)
    for name, parameter in model.graph.named_parameters():
        assert torch.equal(parameter, before[name])
    wanted = model.embed_pixels(others)

    def loss(graph: nn.Module) -> float:
        return float((1 - F.cosine_similarity(graph(others.float()), wanted)).mean().detach())

    assert loss(rebuilt.graph) < 0.7 * loss(nearest.graph)
    again = copy.deepcopy(nearest)
    reconstruct(again.graph, model.graph, pixels)
    for key, value in again.graph.state_dict().items():
        assert torch.equal(value, rebuilt.graph.state_dict()[key]), key


def test_latent_weights_round_to_the_codes_chosen() -> None:
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(200, 12)))
    weight = torch.from_numpy(rng.normal(size=(1, 5, 12)))
    scales, high = torch.full((1, 5, 1), 0.3, dtype=torch.float64), torch.full_like(weight, 7)
    latent, codes = _round(weight, (x.T @ x)[None] / 200, scales, -high, high)
    assert torch.equal(torch.round(latent / 0.3).clamp(-7, 7), codes)
    assert not torch.equal(codes, torch.round(weight / 0.3).clamp(-7, 7))
    assert (latent / 0.3 - codes).abs().mean() > 0.1  # not in the middle of the codes' intervals


def test_rounding_with_feedback_is_near_the_best_of_all() -> None:
    """Three inputs, codes -1..1: all 27 roundings can be tried."""
    rng = np.random.default_rng(0)
    better, close = 0, 0
    for _ in range(40):
        x = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3))
        gram = torch.from_numpy(x.T @ x / 50 + 1e-6 * np.eye(3))[None]
        weight = torch.from_numpy(rng.uniform(-1, 1, (1, 1, 3)))
        one = torch.ones_like(weight)

        def error(codes: torch.Tensor, weight=weight, gram=gram) -> float:  # type: ignore[no-untyped-def]
            d = codes.reshape(1, 3).double() - weight[0]
            return float(d @ gram[0] @ d.T)

        found = error(_round(weight, gram, one[..., :1], -one, one)[1])
        nearest = error(weight.round())
        grid = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 3)
        best = min(error(codes) for codes in grid)
        assert found >= best - 1e-9
        better += found <= nearest + 1e-9
        close += found <= 1.5 * best + 1e-9
    assert better >= 32
    assert close >= 24
