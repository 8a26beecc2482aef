"""Pruned networks are smaller dense networks; scores, costs and groups against independent answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import SIZE, SmallFaceNet, make_faces, randomize
from efquantface.backbones.registry import BACKBONES
from efquantface.contract import FaceContract
from efquantface.embedding.embedder import Embedder
from efquantface.errors import RecipeError
from efquantface.export import alone
from efquantface.export.onnx_writer import write_onnx
from efquantface.export.parity import check_parity
from efquantface.graph.checkpoint import load_checkpoint, save_checkpoint
from efquantface.graph.macs import macs
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.prune import importance
from efquantface.prune.allocate import Cost, choose, coarsest, floors
from efquantface.prune.channels import Channels
from efquantface.prune.importance import magnitude, taylor
from efquantface.prune.prune import prune
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme
from efquantface.quantize.vocabulary import OPERATORS


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large backbones are embedded crop by crop; tests/export has the batches above 64."""
    monkeypatch.setattr(alone, "BATCHES", (1, 3))


@pytest.fixture
def model(network: nn.Module, contract: FaceContract) -> FaceModel:
    return load_model(network, contract=contract)


@pytest.fixture
def batches(contract: FaceContract) -> list[torch.Tensor]:
    return list(torch.split(torch.from_numpy(contract.pixels(make_faces().images)), 16))


def test_groups_are_what_goes_together(model: FaceModel) -> None:
    """The stream of the residual block with the depthwise tail, and the inside of the block."""
    found = Channels(model.graph, SIZE, SIZE)
    described = {
        (frozenset(g.writers), frozenset(g.depthwise), frozenset(g.readers)) for g in found.groups
    }
    assert described == {
        (
            frozenset({"stem_0", "block_body_6"}),
            frozenset({"tail"}),
            frozenset({("block_body_0", 1), ("fc", 1)}),
        ),
        (
            frozenset({"block_body_0"}),
            frozenset({"block_body_3"}),
            frozenset({("block_body_6", 1)}),
        ),
    }
    assert found.whole == {"fc": "it gives the embedding"}


def test_cost_is_what_the_network_computes(model: FaceModel, batches: list[torch.Tensor]) -> None:
    groups = Channels(model.graph, SIZE, SIZE).groups
    cost = Cost.of(model.graph, groups, (SIZE, SIZE))
    assert cost.total({g.name: g.size for g in groups}) == macs(model.graph, SIZE, SIZE)
    for share in (0.2, 0.4):
        pruned = prune(model, batches, share, round_to=2)
        assert pruned.macs == macs(pruned.model.graph, SIZE, SIZE)
        assert pruned.macs <= (1 - share) * pruned.macs_before
        assert pruned.macs_before == macs(model.graph, SIZE, SIZE)


def test_dead_channels_go_first_and_nothing_changes(contract: FaceContract) -> None:
    network = SmallFaceNet()
    torch.manual_seed(1)
    randomize(network)
    dead = [1, 5, 6, 7, 8, 20, 21, 30]
    with torch.no_grad():
        network.block.body[6].weight[:, dead] = 0  # nobody reads them
    model = load_model(network, contract=contract)
    pixels = torch.from_numpy(contract.pixels(make_faces().images))
    (inner,) = [g for g in Channels(model.graph, SIZE, SIZE).groups if g.size == 32]
    score = taylor(model.graph, [inner], [pixels])[inner.name]
    assert sorted(torch.argsort(score)[:8].tolist()) == dead
    assert score[dead].abs().max() == 0
    channels = Channels(model.graph, SIZE, SIZE)
    channels.remove(inner, dead)
    left = channels.finish()
    torch.testing.assert_close(left(pixels.float()), model.graph(pixels.float()))
    assert channels.kept[inner.name] == [i for i in range(32) if i not in dead]
    channels.remove(inner, [0, 3])  # present numbers
    assert channels.kept[inner.name][:3] == [2, 3, 9]


def test_taylor_is_the_gauss_newton_loss(
    model: FaceModel, batches: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the Jacobian of the unit embedding in a gate in front of the readers."""
    monkeypatch.setattr(importance, "_DIRECTIONS", 600)
    groups = Channels(model.graph, SIZE, SIZE).groups
    crops = batches[0][:3]
    found = taylor(model.graph, groups, [crops])
    for group in groups:

        def embed(gate: torch.Tensor, group=group) -> torch.Tensor:
            hooks = [
                model.graph.get_submodule(reader).register_forward_pre_hook(
                    lambda m, x: (x[0] * gate.view(1, -1, *(1,) * (x[0].dim() - 2)),)
                )
                for reader, _ in group.readers
            ]
            try:
                return F.normalize(model.graph(crops.float()), dim=1)
            finally:
                for hook in hooks:
                    hook.remove()

        slope = torch.autograd.functional.jacobian(embed, torch.ones(group.size))
        wanted = slope.square().sum(dim=1).mean(dim=0) / 2  # (crops, D, C)
        torch.testing.assert_close(found[group.name], wanted, rtol=0.25, atol=1e-4)


def test_magnitude_against_numpy(model: FaceModel) -> None:
    groups = Channels(model.graph, SIZE, SIZE).groups
    scores = magnitude(model.graph, groups)
    (inner,) = [g for g in groups if g.size == 32]
    total = sum(
        (model.graph.get_submodule(n).weight.detach().numpy().reshape(32, -1) ** 2).sum(1)
        for n in (*inner.writers, *inner.depthwise)
    )
    np.testing.assert_allclose(scores[inner.name], total / total.mean(), rtol=1e-5)


def test_choice_is_the_cheapest_and_stops_at_the_floor() -> None:
    """Two layers in a row: a -> b; the scores of b are lower for each product they save."""
    cost = Cost([(3, "a", 1, 100.0), ("a", "b", 1, 100.0), ("b", 4, 1, 1.0)])
    scores = {"a": torch.arange(16.0) + 100, "b": torch.arange(16.0).flip(0)}
    removed = choose(scores, cost, cost.total({"a": 16, "b": 16}) - 1, round_to=4)
    assert removed == {"a": [], "b": [15, 14, 13, 12]}
    assert cost.total({"a": 16, "b": 16}) == 100 * 3 * 16 + 100 * 256 + 64
    deep = choose(scores, cost, cost.total({"a": 8, "b": 4}), round_to=4)
    assert 16 - len(deep["b"]) == 4  # its floor, a quarter
    assert len(deep["a"]) % 4 == 0
    with pytest.raises(RecipeError, match=r"gets to 0 million.*floor \(25%\)"):
        choose(scores, cost, 1.0, round_to=4)
    # the step that meets the goal saves more than is missing: what fits is given back
    early = {"a": torch.tensor([1.0, 1, 1, 1]), "b": torch.full((16,), 0.9)}
    wide = Cost([(1, "a", 1, 1000.0), (1, "b", 1, 1.0)])
    kept = choose(early, wide, wide.total({"a": 3, "b": 16}) + 2, round_to=1)
    assert (len(kept["a"]), len(kept["b"])) == (1, 0)
    odd = choose({"a": torch.rand(18)}, Cost([(3, "a", 1, 1.0)]), 3 * 17, round_to=8)
    assert len(odd["a"]) == 2  # 16 are left


def test_recovery_brings_the_embedding_back(model: FaceModel, batches: list[torch.Tensor]) -> None:
    pixels = torch.cat(batches).float()
    wanted = model.graph(pixels)
    apart = {
        recover: float(
            (1 - F.cosine_similarity(
                prune(model, batches, 0.3, round_to=2, recover=recover).model.graph(pixels), wanted
            )).mean().detach()
        )
        for recover in (False, True)
    }  # fmt: skip
    assert apart[True] < 0.7 * apart[False]


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, -0.2])
def test_shares_that_make_no_sense(
    share: float, model: FaceModel, batches: list[torch.Tensor]
) -> None:
    with pytest.raises(RecipeError, match="0 to 1"):
        prune(model, batches, share)


def test_a_goal_out_of_reach(model: FaceModel, batches: list[torch.Tensor]) -> None:
    with pytest.raises(RecipeError, match="every group of channels is at its floor"):
        prune(model, batches, 0.97)


def test_multiples_that_are_too_coarse_make_way(
    model: FaceModel, batches: list[torch.Tensor]
) -> None:
    options = {"rounds": 1, "recover": False}
    made = prune(model, batches, 0.1, round_to=(4, 2), **options)
    left = {after for _, before, after in made.layers if after < before}
    assert left
    assert all(count % 4 == 0 for count in left)
    assert made.round_to == 4
    assert "in multiples of 4" in made.describe()[0]
    made = prune(model, batches, 0.1, round_to=(64, 4), **options)
    assert made.share > 0.05
    assert made.round_to == 4
    with pytest.raises(RecipeError, match="floor"):
        prune(model, batches, 0.1, round_to=(64, 64), **options)


def test_the_coarsest_multiple_is_the_first_that_its_floors_allow() -> None:
    cost = Cost([("a", 1, 1, 1.0), ("b", 1, 1, 1.0)], fixed=0.0)
    sizes = {"a": 64, "b": 24}
    assert floors(sizes, 16, 0.25) == {"a": 16, "b": 16}
    assert coarsest((16, 8), cost, sizes, 32, 0.25) == 16  # 16 + 16
    assert coarsest((16, 8), cost, sizes, 31, 0.25) == 8  # 16 + 8
    assert coarsest((32, 16), cost, sizes, 56, 0.25) == 32  # 32, and 24 stay whole
    assert coarsest((16, 8), cost, sizes, 1, 0.25) == 8  # none: the last one


LIGHT = ("mobilefacenet", "mobilenetv2", "dlib-resnet", "edgeface-xs", "iresnet18-se", "mbf")


@pytest.mark.parametrize("name", LIGHT)
def test_backbones(name: str, tmp_path: Path) -> None:
    """Pruned, stored without code, quantized, exported and run in integers."""
    entry = BACKBONES[name]
    torch.manual_seed(0)
    model = load_model(randomize(entry.build()), contract=entry.contract)
    c = entry.contract
    faces = np.random.default_rng(0).integers(0, 256, (4, c.height, c.width, 3), dtype=np.uint8)
    pixels = torch.from_numpy(c.pixels(faces))
    share = 0.1 if name == "edgeface-xs" else 0.25
    pruned = prune(model, [pixels], share, rounds=1, recover=name == "mobilefacenet")
    small = pruned.model
    assert macs(small.graph, c.height, c.width) <= (1 - share) * pruned.macs_before
    assert small.parameters < model.parameters
    assert all(after % 8 == 0 or after == before for _, before, after in pruned.layers)
    save_checkpoint(small, tmp_path / "small.safetensors")
    again = load_checkpoint(tmp_path / "small.safetensors", OPERATORS)
    np.testing.assert_array_equal(again.embed_pixels(pixels), small.embed_pixels(pixels))
    if name == "edgeface-xs":
        assert any(
            "left whole, because Transpose needs all channels" in s for s in pruned.describe()
        )
    student = quantize(small, Scheme())
    set_ranges(student.graph, [pixels])
    write_onnx(student, tmp_path / "s.onnx")
    own = Embedder.open(small).embed(faces)
    parity = check_parity(student, tmp_path / "s.onnx", faces, own)
    assert parity.executed.convolutions == parity.executed.integer_convolutions
    assert not [p for p in parity.problems if not p.startswith("end to end")]
