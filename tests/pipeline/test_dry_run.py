"""A dry run says what a run would do, writes nothing, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conftest import make_faces
from efquantface import compress
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.errors import EfqError, RunError
from efquantface.evaluation.sets import EvalSet
from efquantface.pipeline.estimate import stages
from efquantface.recipe import Recipe


def everything(root: Path) -> list[str]:
    return [str(path) for path in root.rglob("*")]


def test_it_says_what_was_found_and_leaves_nothing(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EFQ_CACHE", str(tmp_path / "cache"))
    people = EvalSet("mine", make_faces(5, 3, seed=4), None, True)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    plan = compress(
        network, faces, tmp_path / "run", contract=contract, eval_sets=[people], dry_run=True,
        epochs=3, batch_size=8,
    )  # fmt: skip
    assert everything(tmp_path) == []
    assert (plan.images, plan.identities, plan.train, plan.held) == (48, 12, 40, 8)
    assert plan.sets == {"mine": 15}
    assert plan.steps == 3 * (40 // 8)
    assert plan.memory_mb > 0
    assert plan.contract == contract
    told = json.loads(json.dumps(plan.as_dict()))
    assert told["minutes"] == pytest.approx(sum(plan.seconds.values()) / 60)
    assert set(plan.seconds) <= set(plan.stages)
    assert all(seconds > 0 for seconds in plan.seconds.values())
    assert "\n" not in repr(plan)
    out = capsys.readouterr().out
    for said in (
        "48 images, 12 identities",
        "mine, 15 images",
        "15 steps, about",
        "Nothing was written",
    ):
        assert said in out
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize(
    "options", [{"epochs": 0, "bits": "w4a8"}, {"prune": 0.3, "epochs": 1}, {"benchmark": False}]
)
def test_the_plan_follows_the_recipe(
    options: dict[str, Any], tmp_path: Path, network: nn.Module, contract: FaceContract,
    faces: FaceSet,
) -> None:  # fmt: skip
    plan = compress(
        network, faces, tmp_path / "run", contract=contract, dry_run=True, quiet=True, **options
    )
    assert ("fine-tuning" in plan.stages) == (plan.steps > 0) == (options.get("epochs") != 0)
    assert ("pruning" in plan.stages) == ("prune" in options)
    assert ("speed" in plan.stages) == options.get("benchmark", True)
    recipe = Recipe.create({"teacher": "t", "faces": "f", **options})
    assert stages(recipe)[1:] == plan.stages


def test_what_would_fail_fails(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    options: dict[str, Any] = {"contract": contract, "dry_run": True, "quiet": True}
    with pytest.raises(EfqError, match="nowhere"):
        compress(network, faces, tmp_path / "run", eval=("lfw=nowhere",), **options)
    with pytest.raises(EfqError, match="no_such_layer"):
        compress(network, faces, tmp_path / "run", layers={"no_such_layer": "w4a8"}, **options)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="exists"):
        compress(network, faces, tmp_path / "run", **options)
