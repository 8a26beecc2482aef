"""A run can be repeated from what its report says, and the report names no folder of the machine."""

from __future__ import annotations

from pathlib import Path

import yaml

from efquantface.recipe import Recipe
from efquantface.report.provenance import Provenance, as_yaml, command, without_folders


def test_folders_are_left_out(tmp_path: Path) -> None:
    values = {"teacher": str(tmp_path / "t.onnx"), "faces": str(tmp_path / "my faces")}
    recipe = Recipe.create({**values, "eval": [f"lfw={tmp_path / 'LFW'}"]})
    assert command(recipe) == "efq compress t.onnx 'my faces' --eval lfw=LFW"
    text = as_yaml(recipe.model_dump(mode="json"))
    assert str(tmp_path) not in text
    again = Recipe.create(yaml.safe_load(text))
    assert (again.teacher, again.evaluation.eval) == ("t.onnx", ("lfw=LFW",))
    assert without_folders("data/faces") == "data/faces"


def test_provenance(tmp_path: Path) -> None:
    student = tmp_path / "student.onnx"
    student.write_bytes(b"abc")
    recipe = Recipe.create({"teacher": "t.onnx", "faces": "f", "licence": "MIT"})
    made = Provenance.of(recipe, {"teacher": "1", "faces": "2"}, {"a": "1.0", "b": None}, student)
    assert (made.student, made.licence) == ("ba7816bf8f01cfea", "MIT")  # FIPS 180-2, B.1
    assert made.versions == {"a": "1.0"}
