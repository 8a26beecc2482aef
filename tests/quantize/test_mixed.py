"""Mixed precision: sensitivities are measured, the choice is the best there is, budgets are kept."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.errors import RecipeError
from efquantface.export.onnx_writer import to_onnx
from efquantface.importers.load import load_model
from efquantface.pipeline.start import make_start
from efquantface.quantize.mixed import CHOICES, LayerChoice, allocate, parse_budget, sensitivities
from efquantface.quantize.scheme import Bits, Scheme


def test_choice_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    layers = [
        LayerChoice(f"l{i}", int(rng.integers(10, 500)), tuple(sorted(rng.random(3))[::-1]))
        for i in range(6)
    ]

    def size(layer: LayerChoice, bits: int) -> float:
        return layer.weights * bits / 8

    budget = 0.7 * sum(layer.weights for layer in layers)
    chosen = allocate(layers, size, budget)
    assert sum(size(c, c.bits) for c in chosen) <= budget
    best = min(
        sum(layer.losses[p] for layer, p in zip(layers, picks, strict=True))
        for picks in itertools.product(range(3), repeat=6)
        if sum(size(layer, CHOICES[p]) for layer, p in zip(layers, picks, strict=True)) <= budget
    )
    assert sum(c.losses[CHOICES.index(c.bits)] for c in chosen) == pytest.approx(best)
    with pytest.raises(RecipeError, match="larger"):
        allocate(layers, size, 1.0)


def test_fewer_bits_cost_more(network: nn.Module, contract: FaceContract, faces: FaceSet) -> None:
    model = load_model(network, contract=contract)
    pixels = torch.from_numpy(contract.pixels(faces.images))
    before = model.embed_pixels(pixels)
    found = sensitivities(model.graph, [pixels], Scheme())
    assert len(found) == 6
    assert all(c.losses[0] > c.losses[2] for c in found)
    torch.testing.assert_close(model.embed_pixels(pixels), before)


@pytest.mark.parametrize("budget", ["9KB", "8800B"])
def test_budget_is_kept(
    network: nn.Module, contract: FaceContract, faces: FaceSet, budget: str
) -> None:
    model = load_model(network, contract=contract)
    pixels = [torch.from_numpy(contract.pixels(faces.images))]
    console = Console(quiet=True)
    full = make_start(model, pixels, Scheme(), None, 0, console)
    start = make_start(model, pixels, Scheme(), budget, 0, console)
    limit = parse_budget(budget, to_onnx(full.student).ByteSize())
    assert to_onnx(start.student).ByteSize() <= limit
    assert {c.bits for c in start.choices} - {8}
    pinned = make_start(model, pixels, start.scheme, None, 0, console)
    assert to_onnx(pinned.student).SerializeToString() == to_onnx(start.student).SerializeToString()


@pytest.mark.parametrize("budget", ["", "much", "0%", "-2MB", "3TB"])
def test_bad_budgets(budget: str) -> None:
    with pytest.raises(RecipeError, match="budget"):
        parse_budget(budget, 100)


def test_budget_that_cannot_be_met(
    network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    model = load_model(network, contract=contract)
    pixels = [torch.from_numpy(contract.pixels(faces.images))]
    with pytest.raises(RecipeError, match="larger"):
        make_start(model, pixels, Scheme(), "10%", 0, Console(quiet=True))
    with pytest.raises(RecipeError, match="itself"):
        make_start(model, pixels, Scheme(Bits(6, 8)), "90%", 0, Console(quiet=True))
