"""A target in the place of bits: tried, chosen, trained, and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from efquantface import FaceContract, compress
from efquantface.data.faces import FaceSet
from efquantface.errors import EvaluationError, TargetError
from efquantface.pipeline import choose, clock
from efquantface.recipe import Recipe
from efquantface.target.front import Way

FAST = {
    "benchmark": False,
    "cache": False,
    "quiet": True,
    "batch_size": 8,
    "epochs": 1,
    "round_to": 4,
}
WAYS = (Way("w8a8"), Way("w4a8"), Way("w8a8", prune=0.25))


@pytest.fixture(autouse=True)
def few_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "WAYS", WAYS)
    monkeypatch.setattr(clock, "_ROUNDS", (1, 1))


def test_a_size_is_met_and_what_was_tried_is_kept(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    run = tmp_path / "run"
    asked: dict[str, Any] = {"contract": contract, **FAST}
    compress(network, faces, tmp_path / "eight", **asked)
    size = (tmp_path / "eight" / "student.onnx").stat().st_size
    smaller = f"{size - 1000}B"
    done = compress(network, faces, run, target=smaller, calibration_images=8, **asked)
    found = json.loads((run / "choice.json").read_text())
    assert [c["way"]["bits"] for c in found["candidates"]] == ["w8a8", "w4a8", "w8a8"]
    chosen = found["chosen"]
    assert chosen["size"] < size - 1000
    assert abs(done.run.onnx.stat().st_size - chosen["size"]) < 0.1 * size
    pinned = Recipe.read(run / "pinned.yaml")
    assert (pinned.target, pinned.bits, pinned.prune) == (
        None, chosen["way"]["bits"], chosen["way"]["prune"],
    )  # fmt: skip
    assert done.results.recipe["bits"] == chosen["way"]["bits"]
    assert "Choice" in done.run.report.read_text()
    assert json.loads(done.run.metrics.read_text())["choice"]["target"] == smaller


def _chosen_before(tried: list[Way]) -> object:
    def one(run: object, way: Way, *rest: object) -> choose.Candidate:
        tried.append(way)
        return choose.Candidate(way, 1000 - len(tried), 1.0, 0.1, 0.1, 0.1 * len(tried))

    return one


def test_a_stopped_run_goes_on_with_its_choice(
    tmp_path: Path,
    network: nn.Module,
    contract: FaceContract,
    faces: FaceSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[Way] = []
    monkeypatch.setattr(choose, "_tried", _chosen_before(tried))
    asked: dict[str, Any] = {
        "contract": contract, "target": "998B", "calibration_images": 8, **FAST,
    }  # fmt: skip

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr("efquantface.pipeline.method._shared_start", stop)
        with pytest.raises(KeyboardInterrupt):
            compress(network, faces, tmp_path / "run", **asked)
    assert tried == list(WAYS)
    done = compress(network, faces, tmp_path / "run", resume=True, **asked)
    assert tried == list(WAYS)  # nothing is tried twice
    assert done.results.recipe["bits"] == "w4a8"  # the least loss that is small enough


def test_a_pruned_choice_trains_as_long_as_pruning_asks(recipe: Recipe) -> None:
    way = Way("w8a8", prune=0.25)
    assert choose._settled(recipe, way).training.epochs == 12
    given = Recipe.create({**recipe.model_dump(exclude_unset=True), "epochs": 3})
    assert choose._settled(given, way).training.epochs == 3
    assert choose._settled(recipe, Way("w4a8")).training.epochs == 2


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.create({"teacher": "t.onnx", "faces": "f", "target": "60%"})


def test_faces_that_cannot_tell_are_refused(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    asked: dict[str, Any] = {"contract": contract, "calibration_images": 8, **FAST}
    nobody = faces.unlabelled()
    with pytest.raises(TargetError, match="subfolder an identity"):
        compress(network, nobody, tmp_path / "a", target="60%", **asked)
    with pytest.raises(EvaluationError, match="impostor pairs"):
        compress(network, faces, tmp_path / "b", target="TAR@1e-5 -0.3", **asked)
    with pytest.raises(TargetError, match="out of reach, the smallest"):
        compress(network, faces, tmp_path / "c", target="10B", **asked)
