"""Weights that settle: how many, which, and that none moves any more."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from efquantface.contract import FaceContract
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.quantize.layers import QuantConv2d
from efquantface.quantize.placement import quantize
from efquantface.quantize.scheme import Bits, Scheme
from efquantface.quantize.settling import Settling, share_at, suits


def _layer() -> QuantConv2d:
    layer = QuantConv2d(4, 6, (3, 3), (1, 1), (0, 0), (1, 1), 1, bits=4)
    layer.set_weight(
        torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(6)
    )
    layer.set_scale(torch.full((6,), 0.3))
    return layer


def _share(layer: QuantConv2d) -> float:
    return float((~layer.free).float().mean())


def test_those_nearest_to_a_code_settle_first() -> None:
    graph = nn.Sequential(_layer())
    layer = graph[0]
    settling = Settling(graph)
    assert _share(layer) == 0
    ratio = (layer.weight / 0.3).detach().numpy()
    away = np.abs(ratio - np.clip(np.round(ratio), -7, 7)).ravel()
    settling.settle(0.25)
    settled = (~layer.free).flatten().numpy()
    assert settled.sum() == round(0.25 * away.size)
    assert away[settled].max() <= away[~settled].min()
    assert np.array_equal(
        layer.settled.flatten().numpy()[settled], np.clip(np.round(ratio), -7, 7).ravel()[settled]
    )
    settling.settle(0.1)  # fewer are due than have settled: none comes back
    assert _share(layer) == pytest.approx(0.25, abs=0.01)


def test_a_settled_weight_stays_and_a_free_one_is_trained_in_float() -> None:
    graph = nn.Sequential(_layer())
    layer = graph[0]
    settling = Settling(graph)
    settling.settle(0.5)
    free = layer.free.clone()
    before = layer.quantized_weight().detach() / 0.3
    torch.testing.assert_close(before[~free], before[~free].round())
    assert (before[free] - before[free].round()).abs().max() > 0.1
    layer.quantized_weight().square().sum().backward()
    assert layer.latent.grad is not None
    assert (layer.latent.grad[~free] == 0).all()
    assert (layer.latent.grad[free] != 0).any()
    with torch.no_grad():
        layer.latent.add_(1.0)
    after = layer.quantized_weight().detach() / 0.3
    torch.testing.assert_close(after[~free], before[~free])


def test_at_the_end_the_codes_are_the_weights() -> None:
    graph = nn.Sequential(_layer())
    layer = graph[0]
    settling = Settling(graph)
    settling.settle(0.7)
    assert not settling.whole
    with torch.no_grad():
        layer.latent.mul_(1.7)
    settled, free = layer.settled.clone(), layer.free.clone()
    settling.finish()
    assert settling.whole
    assert layer.settled is None
    codes = layer.weight_codes()[0].float()
    assert torch.equal(codes[~free], settled[~free])
    torch.testing.assert_close(layer.quantized_weight().detach(), codes * 0.3)
    assert codes.abs().max() <= 7


def test_eight_bits_do_not_settle(network: nn.Module, contract: FaceContract) -> None:
    model: FaceModel = load_model(network, contract=contract)
    assert not Settling(quantize(model, Scheme()).graph).layers
    mixed = Scheme(Bits(8, 8), (("block_*", Bits(4, 8)),))
    student = quantize(model, mixed)
    few = [m for m in student.graph.modules() if getattr(m, "bits", 8) == 4]
    assert len(Settling(student.graph).layers) == sum(isinstance(m, QuantConv2d) for m in few) > 0


def test_all_have_settled_before_the_end() -> None:
    shares = [share_at(step / 100) for step in range(101)]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == shares[96] == 1


def test_training_begins_with_the_teachers_weights() -> None:
    student, teacher = nn.Sequential(_layer()), nn.Sequential(nn.Conv2d(4, 6, 3))
    other = nn.Sequential(_layer())
    Settling(student, teacher)
    torch.testing.assert_close(student[0].weight, teacher[0].weight)
    Settling(other, nn.Sequential(nn.Conv2d(4, 7, 3)))  # of another shape: none of its own
    torch.testing.assert_close(other[0].weight, _layer().weight)


def test_few_bits_in_long_trainings_settle(network: nn.Module, contract: FaceContract) -> None:
    model = load_model(network, contract=contract)
    six, four, few = (
        quantize(model, Scheme.parse(bits)).graph for bits in ("w6a8", "w4a8", "w4a4")
    )
    assert suits(four, 2000)
    assert suits(few, 2000)
    assert not suits(four, 1999)
    assert not suits(six, 9999)
