"""Appended zeros as convolutions: the same function, whose streams can be pruned."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from conftest import randomize
from efquantface.backbones.registry import BACKBONES
from efquantface.contract import FaceContract
from efquantface.graph import ops
from efquantface.graph.macs import macs
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.prune.channels import Channels
from efquantface.prune.prune import prune
from efquantface.prune.shortcuts import without_zero_channels


@pytest.fixture(scope="module")
def dlib() -> FaceModel:
    entry = BACKBONES["dlib-resnet"]
    torch.manual_seed(0)
    return load_model(randomize(entry.build()), contract=entry.contract)


@pytest.fixture
def pixels(dlib: FaceModel) -> torch.Tensor:
    size = (3, 3, dlib.contract.height, dlib.contract.width)
    return torch.rand(size, generator=torch.Generator().manual_seed(0)) * 255


def test_the_function_and_nearly_the_cost_stay(dlib: FaceModel, pixels: torch.Tensor) -> None:
    size = (dlib.contract.height, dlib.contract.width)
    opened = without_zero_channels(dlib.graph, *size)
    with torch.no_grad():
        torch.testing.assert_close(opened(pixels), dlib.graph(pixels))
    assert not [m for m in opened.modules() if isinstance(m, ops.ZeroPad) and m.channels]
    had = [m for m in dlib.graph.modules() if isinstance(m, ops.ZeroPad) and m.channels]
    assert len(had) == 3  # and the graph that was given is as it was
    assert macs(dlib.graph, *size) < macs(opened, *size) < 1.01 * macs(dlib.graph, *size)


def test_a_graph_without_them_is_returned_as_it_is(
    network: nn.Module, contract: FaceContract
) -> None:
    graph = load_model(network, contract=contract).graph
    assert without_zero_channels(graph, contract.height, contract.width) is graph


def test_streams_of_every_width_are_groups(dlib: FaceModel, pixels: torch.Tensor) -> None:
    channels = Channels(dlib.graph, dlib.contract.height, dlib.contract.width)
    streams = [g for g in channels.groups if len(g.writers) > 1]
    assert sorted(g.size for g in streams) == [32, 64, 128, 256]
    assert list(channels.whole.values()) == ["it gives the embedding"]
    by_magnitude = prune(dlib, [pixels], 0.75, importance="magnitude", rounds=1, recover=False)
    assert by_magnitude.share >= 0.75  # out of reach with the streams whole
