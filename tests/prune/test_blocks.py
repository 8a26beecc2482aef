"""Residual blocks removed whole: which ones can go, what stays, and what the fit brings back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from conftest import SIZE, SmallFaceNet, make_faces, randomize
from efquantface.backbones.registry import BACKBONES
from efquantface.contract import FaceContract
from efquantface.graph.macs import macs
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.prune.blocks import blocks_of, without_blocks
from efquantface.prune.prune import prune
from efquantface.prune.refit import refit
from efquantface.prune.shorter import block_losses, blocks_in, embeddings, loss, shorten


class Residual(nn.Module):
    """x + f(x), or relu(x + f(x))."""

    def __init__(self, channels: int, *, relu: bool, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, stride, 1), nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, 1, 1),
        )  # fmt: skip
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.short = nn.Identity() if stride == 1 else nn.Conv2d(channels, channels, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.short(x) + self.body(x))


class ResidualNet(nn.Module):
    """Three blocks whose shortcut is the identity, and one whose shortcut is a layer."""

    def __init__(self, *, relu: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU() if relu else nn.Identity())
        self.blocks = nn.Sequential(
            Residual(16, relu=relu),
            Residual(16, relu=relu),
            Residual(16, relu=relu, stride=2),
            Residual(16, relu=relu),
        )
        self.fc = nn.Linear(16 * (SIZE // 4) ** 2, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.blocks(self.stem(x)).flatten(1))


def drawn(*, relu: bool) -> ResidualNet:
    """Always the same weights."""
    torch.manual_seed(3)
    network = ResidualNet(relu=relu).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.normal_(0, 0.8 / module.weight[0].numel() ** 0.5)
    return network


def make(contract: FaceContract, *, relu: bool = False, useless: int | None = None) -> FaceModel:
    """``useless``: the block whose branch gives a thousandth."""
    network = drawn(relu=relu)
    if useless is not None:
        with torch.no_grad():
            for parameter in network.blocks[useless].body[2].parameters():
                parameter.mul_(1e-3)
    return load_model(network, contract=contract)


@pytest.fixture
def batches(contract: FaceContract) -> list[torch.Tensor]:
    return list(torch.split(torch.from_numpy(contract.pixels(make_faces().images)), 16))


@pytest.mark.parametrize("relu", [False, True])
def test_blocks_are_sums_of_a_value_and_what_is_computed_from_it(
    relu: bool, contract: FaceContract
) -> None:
    model = make(contract, relu=relu)
    found = blocks_of(model.graph, SIZE, SIZE)
    assert len(found) == 3  # not the one with a layer in its shortcut
    for block in found:
        layers = [n for n in block.inside if "body" in n]
        assert layers
        assert not any("short" in n for n in block.inside)


@pytest.mark.parametrize("relu", [False, True])
def test_without_a_block_the_network_is_the_one_written_without_it(
    relu: bool, contract: FaceContract, batches: list[torch.Tensor]
) -> None:
    """Against PyTorch's own modules with the identity in the block's place."""
    model = make(contract, relu=relu)
    for number, place in enumerate((0, 1, 3)):
        network = drawn(relu=relu)
        network.blocks[place] = nn.Identity()
        wanted = load_model(network, contract=contract)
        block = blocks_of(model.graph, SIZE, SIZE)[number]
        found = without_blocks(model.graph, [block]).graph
        pixels = batches[0].float()
        torch.testing.assert_close(found(pixels), wanted.graph(pixels), rtol=1e-4, atol=1e-5)
        assert len(list(found.graph.nodes)) == len(list(wanted.graph.graph.nodes))
        assert macs(found, SIZE, SIZE) == macs(wanted.graph, SIZE, SIZE)


@pytest.mark.parametrize("relu", [False, True])
def test_a_value_stands_for_what_the_removed_blocks_gave(
    relu: bool, contract: FaceContract
) -> None:
    model = make(contract, relu=relu)
    first, second, _ = blocks_of(model.graph, SIZE, SIZE)
    found = without_blocks(model.graph, [first, second])
    assert second.name in found.stands_for.values()
    assert first.name not in found.stands_for.values()
    names = {str(n.target) for n in found.graph.graph.nodes}
    assert set(found.stands_for) <= names


@pytest.mark.parametrize("relu", [False, True])
def test_fit_makes_up_for_a_block(
    relu: bool, contract: FaceContract, batches: list[torch.Tensor]
) -> None:
    model = make(contract, relu=relu)
    wanted = embeddings(model, batches)
    for block in blocks_in(model):
        raw = loss(embeddings(shorten(model, [block], []).model, batches), wanted)
        fitted = shorten(model, [block], batches)
        assert loss(embeddings(fitted.model, batches), wanted) < 0.8 * raw
        assert fitted.blocks == (block.name,)


def test_fit_that_knows_of_the_block_is_nearer(
    contract: FaceContract, batches: list[torch.Tensor]
) -> None:
    """A layer in front of a sum makes up for the block that is gone, not only for its own inputs."""
    model = make(contract)
    wanted = embeddings(model, batches)
    apart = []
    for known in (False, True):
        found = without_blocks(model.graph, blocks_in(model)[:1])
        stands_for = found.stands_for if known else None
        refit(found.graph, model.graph, batches, {}, stands_for=stands_for)
        apart.append(float(loss(found.graph(torch.cat(batches).float()).detach(), wanted)))
    assert apart[1] < apart[0]


@pytest.mark.parametrize("useless", [0, 1, 3])
def test_a_useless_block_costs_nothing(
    useless: int, contract: FaceContract, batches: list[torch.Tensor]
) -> None:
    model = make(contract, useless=useless)
    blocks = blocks_in(model)
    losses = block_losses(model, blocks, batches)
    cheapest = min(losses, key=losses.__getitem__)
    assert cheapest == blocks[(0, 1, 3).index(useless)].name
    assert losses[cheapest] < 0.01 * sorted(losses.values())[1]


def test_blocks_and_channels_meet_one_share(
    contract: FaceContract, batches: list[torch.Tensor]
) -> None:
    model = make(contract, useless=1)
    shorter = shorten(model, blocks_in(model)[1:2], batches)
    lost = 1 - macs(shorter.model.graph, SIZE, SIZE) / macs(model.graph, SIZE, SIZE)
    for share in (lost / 2, lost + 0.2):
        made = prune(model, batches, share, round_to=2, rounds=2, shorter=shorter)
        assert made.macs == macs(made.model.graph, SIZE, SIZE)
        assert made.share >= share
        assert (made.share == lost) == (share < lost)  # channels go only for what is missing
        assert made.blocks == shorter.blocks
        assert any("1 residual block removed" in line for line in made.describe())
        gone = [name for name, _, after in made.layers if after == 0]
        assert gone == [n for n in blocks_in(model)[1].inside if "body_0" in n or "body_2" in n]
    assert made.as_dict()["blocks"] == list(shorter.blocks)


def test_networks_without_blocks(contract: FaceContract) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(16))
    network(torch.zeros(1, 3, SIZE, SIZE))
    assert blocks_in(load_model(network.eval(), contract=contract)) == []


COUNTS = {"mobilefacenet": 12, "dlib-resnet": 10, "iresnet18": 4}


@pytest.mark.parametrize("name", COUNTS)
def test_backbones(name: str) -> None:
    entry = BACKBONES[name]
    torch.manual_seed(0)
    model = load_model(randomize(entry.build()), contract=entry.contract)
    blocks = blocks_in(model)
    assert len(blocks) == COUNTS[name]
    smaller = shorten(model, blocks, []).model
    assert smaller.parameters < model.parameters
    assert blocks_in(smaller) == []
    c = entry.contract
    assert smaller.embed_pixels(torch.zeros(2, 3, c.height, c.width)).shape == (2, c.embedding_size)


def test_small_face_net_has_one(contract: FaceContract) -> None:
    torch.manual_seed(0)
    assert len(blocks_in(load_model(randomize(SmallFaceNet()), contract=contract))) == 1
