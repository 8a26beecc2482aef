"""Pruning to a time: the search, with the multiply-accumulates standing in for a clock."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from conftest import SIZE, make_faces
from efquantface.contract import FaceContract
from efquantface.errors import RecipeError
from efquantface.graph.macs import macs
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.pipeline.latency import prune_to
from efquantface.prune.goal import PruneGoal
from efquantface.recipe import Recipe


@pytest.fixture
def model(network: nn.Module, contract: FaceContract) -> FaceModel:
    return load_model(network, contract=contract)


@pytest.fixture
def batches(contract: FaceContract) -> list[torch.Tensor]:
    return [torch.from_numpy(contract.pixels(make_faces().images))]


def clock(model: FaceModel) -> float:
    """A machine that does a hundred thousand multiply-accumulates a millisecond, and needs two more."""
    return 2 + macs(model.graph, SIZE, SIZE) / 1e5


def test_least_share_that_meets_the_goal(model: FaceModel, batches: list[torch.Tensor]) -> None:
    before = clock(model)
    goal = 2 + 0.6 * (before - 2)
    said: list[str] = []
    pruned, latency = prune_to(model, batches, goal, clock, round_to=2, say=said.append)
    assert latency.goal == goal
    assert latency.before == before
    assert latency.after == clock(pruned.model) <= goal
    assert latency.after > 0.8 * goal  # not much more than was asked for
    assert f"{before:.2f} ms" in said[0]
    assert any("removed" in line for line in said)


def test_goal_out_of_reach_says_how_far_it_got(
    model: FaceModel, batches: list[torch.Tensor]
) -> None:
    with pytest.raises(RecipeError, match=r"2\.1ms: pruning reached .* ms from .* ms .* floor"):
        prune_to(model, batches, 2.1, clock, round_to=2)
    with pytest.raises(RecipeError, match="already"):
        prune_to(model, batches, 1e4, clock)


@pytest.mark.parametrize("value", [0, 1.0, -0.5, "0ms", "fast", "ms", "nan", "infms", "-2ms"])
def test_goals_that_make_no_sense(value: float | str) -> None:
    with pytest.raises(RecipeError, match="between 0 and 1"):
        PruneGoal.parse(value)
    with pytest.raises(RecipeError, match="prune"):
        Recipe.create({"teacher": "a", "faces": "b", "prune": value})


def test_goal_in_a_recipe() -> None:
    recipe = Recipe.create({"teacher": "a", "faces": "b", "prune": "2.5ms", "bits": "w8a8"})
    assert recipe.prune_goal == PruneGoal(ms=2.5)
    assert Recipe.create({"teacher": "a", "faces": "b", "prune": "0.5"}).prune_goal == PruneGoal(
        0.5
    )
    assert Recipe.create({"teacher": "a", "faces": "b", "prune": 0.5}).bits == "float"


def test_pruned_networks_train_longer_unless_told() -> None:
    given = {"teacher": "a", "faces": "b", "bits": "w8a8"}
    assert Recipe.create(given).training.epochs == 2
    assert Recipe.create({**given, "prune": 0.5}).training.epochs == 12
    assert Recipe.create({**given, "prune": 0.5, "epochs": 3}).training.epochs == 3


def test_time_decides_where_a_time_is_asked_for_unless_told() -> None:
    given = {"teacher": "a", "faces": "b"}
    by_time = {
        (prune, by): Recipe.create({**given, "prune": prune, "prune_by": by}).prunes_by_time
        for prune in ("0.5", "2ms")
        for by in ("auto", "macs", "time")
    }
    assert [key for key, value in by_time.items() if value] == [
        ("0.5", "time"), ("2ms", "auto"), ("2ms", "time"),
    ]  # fmt: skip
    assert not Recipe.create({**given, "prune_by": "time"}).prunes_by_time
    assert Recipe.create({**given, "prune": 0.5}).multiples == (8,)
    assert Recipe.create({**given, "prune": 0.5, "bits": "w8a8"}).multiples == (16, 8)
    assert Recipe.create({**given, "prune": "2ms"}).multiples[0] == 16
    assert Recipe.create({**given, "prune": "2ms", "round_to": 4}).multiples == (4,)
