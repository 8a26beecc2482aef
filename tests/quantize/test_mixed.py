"""Mixed precision: sensitivities are measured, the choice is the best there is, budgets are kept."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.errors import RecipeError
from efquantface.export.onnx_writer import to_onnx
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.pipeline.start import make_start
from efquantface.quantize.budget import parse_budget
from efquantface.quantize.layers import QuantConv2d, QuantLinear
from efquantface.quantize.mixed import CHOICES, LayerChoice, allocate, sensitivities
from efquantface.quantize.placement import quantize
from efquantface.quantize.scheme import Bits, Scheme

_LAYER = st.tuples(
    st.integers(1, 500), st.lists(st.floats(1e-6, 1.0), min_size=3, max_size=3, unique=True)
)


def _size(layer: LayerChoice, bits: int) -> float:
    return layer.weights * bits / 8


@given(st.lists(_LAYER, min_size=1, max_size=5), st.floats(0.5, 1.0))
def test_choice_is_the_best_of_all(drawn: list[tuple[int, list[float]]], share: float) -> None:
    """Against every choice there is; more bits never cost more."""
    layers = [
        LayerChoice(f"l{i}", weights, tuple(sorted(losses)[::-1]))
        for i, (weights, losses) in enumerate(drawn)
    ]
    budget = share * sum(layer.weights for layer in layers)
    chosen = allocate(layers, _size, budget)
    assert [c.name for c in chosen] == [layer.name for layer in layers]
    assert sum(_size(c, c.bits) for c in chosen) <= budget * (1 + 1e-6)
    best = min(
        sum(layer.losses[p] for layer, p in zip(layers, picks, strict=True))
        for picks in itertools.product(range(len(CHOICES)), repeat=len(layers))
        if sum(_size(layer, CHOICES[p]) for layer, p in zip(layers, picks, strict=True)) <= budget
    )
    cost = sum(c.losses[CHOICES.index(c.bits)] for c in chosen)
    assert cost <= best * (1 + 1e-4) + 1e-6  # HiGHS stops at a gap of 1e-4
    with pytest.raises(RecipeError, match="larger"):
        allocate(layers, _size, 0.49 * sum(layer.weights for layer in layers))


@pytest.fixture
def calibrated(
    network: nn.Module, contract: FaceContract, faces: FaceSet
) -> tuple[FaceModel, list[Tensor]]:
    """A float model, and batches to calibrate on."""
    pixels = torch.from_numpy(contract.pixels(faces.images))
    return load_model(network, contract=contract), [pixels]


def test_fewer_bits_cost_more(calibrated: tuple[FaceModel, list[Tensor]]) -> None:
    model, (pixels,) = calibrated
    before = model.embed_pixels(pixels)
    found = sensitivities(model.graph, [pixels], Scheme())
    assert len(found) == 6
    assert all(c.losses[0] > c.losses[2] for c in found)
    torch.testing.assert_close(model.embed_pixels(pixels), before)


@pytest.mark.parametrize("budget", ["9KB", "8800B"])
def test_budget_is_kept(calibrated: tuple[FaceModel, list[Tensor]], budget: str) -> None:
    model, pixels = calibrated
    console = Console(quiet=True)
    full = make_start(model, pixels, Scheme(), None, 0, console)
    start = make_start(model, pixels, Scheme(), budget, 0, console)
    limit = parse_budget(budget, to_onnx(full.student).ByteSize())
    assert to_onnx(start.student).ByteSize() <= limit
    assert {c.bits for c in start.choices} - {8}
    pinned = make_start(model, pixels, start.scheme, None, 0, console)
    assert to_onnx(pinned.student).SerializeToString() == to_onnx(start.student).SerializeToString()


def _rounded_layers(model: FaceModel) -> set[str]:
    """Names of layers whose weights have fewer than eight bits."""
    layers = model.graph.named_modules()
    return {n for n, m in layers if isinstance(m, QuantConv2d | QuantLinear) and m.bits < 8}


@pytest.mark.parametrize("wide", ["wide_ends", "wide_depthwise"])
def test_a_budget_leaves_wide_layers_at_eight_bits(
    calibrated: tuple[FaceModel, list[Tensor]], wide: str
) -> None:
    model, pixels = calibrated
    console = Console(quiet=True)
    scheme = dataclasses.replace(Scheme(), **{wide: True})
    fewest = quantize(model, dataclasses.replace(scheme, bits=Bits(4, 8)))
    free = _rounded_layers(fewest)
    budget = f"{to_onnx(fewest).ByteSize() * 1.01:.0f}B"
    start = make_start(model, pixels, scheme, budget, 0, console)
    assert _rounded_layers(start.student) <= free
    assert {c.name for c in start.choices if c.bits < 8} == _rounded_layers(start.student)
    unasked = make_start(model, pixels, Scheme(), budget, 0, console)
    assert len(unasked.choices) == len(start.choices)
    assert _rounded_layers(unasked.student) - free


def test_budget_that_cannot_be_met(calibrated: tuple[FaceModel, list[Tensor]]) -> None:
    model, pixels = calibrated
    with pytest.raises(RecipeError, match="larger"):
        make_start(model, pixels, Scheme(), "10%", 0, Console(quiet=True))
    with pytest.raises(RecipeError, match="itself"):
        make_start(model, pixels, Scheme(Bits(6, 8)), "90%", 0, Console(quiet=True))
