"""A run's directory: a run that was stopped at once is no run yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from efquantface.errors import RunError
from efquantface.pipeline.run_dir import RunDir
from efquantface.recipe import Recipe

RECIPE = Recipe.create({"teacher": "t", "faces": "f"})
OTHER = Recipe.create({"teacher": "t", "faces": "f", "seed": 3})


def test_stopped_before_there_was_anything_to_keep(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.make(RECIPE, force=False, resume=False)
    run.log.write_text("said")
    (run.path / "env.json.partial").write_text("{")
    run.check(OTHER, force=False, resume=False)  # another recipe starts afresh
    run.make(OTHER, force=False, resume=False)
    assert Recipe.read(run.recipe) == OTHER
    run.state.write_text("trained")
    with pytest.raises(RunError, match="exists; add --resume"):
        run.check(OTHER, force=False, resume=False)


@pytest.mark.parametrize("name", ["env.json", "log.txt", "photo.jpg"])
def test_what_is_not_ours_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunError):
        RunDir(tmp_path).check(RECIPE, force=False, resume=False)


def test_a_recipe_that_a_user_wrote_is_not_replaced(tmp_path: Path) -> None:
    for text in ("teacher: t\nfaces: f\n", "not: [a recipe"):
        (tmp_path / "recipe.yaml").write_text(text)
        with pytest.raises(RunError, match="exists"):
            RunDir(tmp_path).check(RECIPE, force=False, resume=False)
