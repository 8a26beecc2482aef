"""Blocks and channels chosen by time, with a model of a machine standing in for a clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from conftest import SIZE, make_faces, randomize
from efquantface.contract import FaceContract
from efquantface.errors import RecipeError
from efquantface.graph.graph import module_nodes
from efquantface.graph.macs import macs
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.pipeline.depth import prune_by_time
from efquantface.prune.goal import PruneGoal


class Residual(nn.Module):
    def __init__(self, channels: int, weight: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 3, 1, 1), nn.PReLU(2 * channels),
            nn.Conv2d(2 * channels, channels, 3, 1, 1),
        )  # fmt: skip
        self.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class Deep(nn.Module):
    """Four blocks, of which the third adds a thousandth of what the others do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 4, 1)
        self.blocks = nn.Sequential(*(Residual(16, w) for w in (1.0, 1.0, 1e-3, 1.0)))
        self.fc = nn.Linear(16 * (SIZE // 4) ** 2, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.blocks(self.stem(x)).flatten(1))


@pytest.fixture
def model(contract: FaceContract) -> FaceModel:
    torch.manual_seed(0)
    network = Deep()
    randomize(network)
    with torch.no_grad():
        for block in network.blocks:
            for parameter in block.body[2].parameters():
                parameter.mul_(0.4 * block.weight)
    return load_model(network, contract=contract)


@pytest.fixture
def batches(contract: FaceContract) -> list[torch.Tensor]:
    return list(torch.split(torch.from_numpy(contract.pixels(make_faces().images)), 16))


def by_operators(model: FaceModel) -> float:
    """A machine on which an operator costs a ms, and its multiplications next to nothing."""
    return len(module_nodes(model.graph)) + macs(model.graph, SIZE, SIZE) / 1e9


def by_products(model: FaceModel) -> float:
    """One on which operators cost nothing."""
    return macs(model.graph, SIZE, SIZE) / 1e6


def test_operators_go_where_they_cost(model: FaceModel, batches: list[torch.Tensor]) -> None:
    before = by_operators(model)
    said: list[str] = []
    made, latency = prune_by_time(
        model, batches, PruneGoal(ms=before - 3), by_operators, round_to=4, say=said.append
    )
    (gone,) = [block for block in latency.blocks if block.gone]
    assert made.blocks == (gone.name,)
    assert gone == min(latency.blocks, key=lambda b: b.loss)  # the useless one
    assert gone.ms == pytest.approx(4, abs=0.1)
    assert latency.after == by_operators(made.model) <= before - 3
    assert latency.before == before
    assert all(after in (0, count) for _, count, after in made.layers)  # no channels had to go
    assert any(gone.name in line for line in said)


def test_useful_blocks_stay_where_channels_do(
    model: FaceModel, batches: list[torch.Tensor]
) -> None:
    """A fifth of the products: the useless block is one, and no other goes."""
    made, latency = prune_by_time(model, batches, PruneGoal(share=0.4), by_products, round_to=4)
    assert latency.goal is None
    assert made.share >= 0.4
    (useless,) = [b.name for b in latency.blocks if b == min(latency.blocks, key=lambda b: b.loss)]
    assert made.blocks in ((useless,), ())
    assert latency.after == by_products(made.model) < latency.before


@pytest.mark.parametrize("clock", [by_operators, by_products])
def test_same_times_same_network(
    clock: Callable[[FaceModel], float], model: FaceModel, batches: list[torch.Tensor]
) -> None:
    goal = PruneGoal(ms=0.7 * clock(model))
    made = [prune_by_time(model, batches, goal, clock, round_to=4)[0] for _ in range(2)]
    assert made[0].blocks == made[1].blocks
    for a, b in zip(
        made[0].model.graph.parameters(), made[1].model.graph.parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_goals_out_of_reach(model: FaceModel, batches: list[torch.Tensor]) -> None:
    with pytest.raises(RecipeError, match="already"):
        prune_by_time(model, batches, PruneGoal(ms=1e4), by_products)
    with pytest.raises(RecipeError, match=r"1e-05ms: pruning reached"):
        prune_by_time(model, batches, PruneGoal(ms=1e-5), by_products, round_to=4)


def test_a_network_without_blocks_loses_channels_alone(
    network: nn.Module, contract: FaceContract, batches: list[torch.Tensor]
) -> None:
    plain = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * (SIZE // 4) ** 2, 16),
    )  # fmt: skip
    model = load_model(randomize(plain), contract=contract)
    said: list[str] = []
    made, latency = prune_by_time(
        model, batches, PruneGoal(share=0.3), by_products, round_to=2, say=said.append
    )
    assert "no residual block can be removed: only channels are" in said
    assert made.blocks == latency.blocks == ()
    assert made.share >= 0.3
