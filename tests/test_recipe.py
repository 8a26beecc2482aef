"""Recipes: values as people give them, and errors that say what to give."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from efquantface.contract import PREPROCESS
from efquantface.errors import EfqError, RecipeError
from efquantface.fields import settings
from efquantface.pipeline.compress import compress
from efquantface.recipe import FLAGS, Recipe

GIVEN = {"teacher": "t.onnx", "faces": "f"}
PYDANTIC = re.compile(
    r"Input should|valid (integer|string|boolean|number)|Extra inputs|type=|Value error"
)


@pytest.mark.parametrize("bits", [8, "8", "int8", "8bit", "w8a8"])
def test_bits(bits: Any) -> None:
    assert Recipe.create({**GIVEN, "bits": bits}).bits == "w8a8"
    assert Recipe.create({**GIVEN, "layers": {"fc": bits}}).layers == {"fc": "w8a8"}


def test_one_eval_set_needs_no_list() -> None:
    assert Recipe.create({**GIVEN, "eval": "lfw=DIR"}).evaluation.eval == ("lfw=DIR",)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"bits": "w9a8"}, "bits 'w9a8': write w8a8"),
        ({"bits": [8]}, "write w8a8"),
        ({"device": "gpu"}, "device 'gpu': write cpu or cuda"),
        ({"preprocess": "insigtface"}, "did you mean insightface?"),
        ({"preprocess": "mean"}, ", ".join(PREPROCESS)),
        ({"epochs": -1}, "epochs: give a whole number from 0 up to 1,000, not -1"),
        ({"epochs": "two"}, "not 'two'"),
        ({"loss": "cosin"}, "give cosine, mse or none, not 'cosin'; did you mean cosine?"),
        ({"cache": "perhaps"}, "cache: give true or false, not 'perhaps'"),
        ({"threads": 0}, "threads: give a whole number from 1, not 0"),
        ({"budget": "big"}, "budget 'big': write a size"),
        ({"prune": [1]}, "share of multiply-accumulates"),
        ({"templates": "N2"}, "write N1D1F1"),
        ({"layers": {"fc": "w1a1"}}, "bits 'w1a1'"),
        ({"layers": 4}, "layers: give a table"),
        ({"training": 4}, "training: give a table of epochs"),
        ({"evaluation": {"evel": "x"}}, "did you mean eval?"),
        ({"bitz": "w8a8"}, "bitz: there is no such setting; did you mean bits?"),
        ({"max_image": 9}, "did you mean max_images?"),
        ({"faces": None}, "faces is needed"),
        ({"faces": 3}, "faces: give a text, not 3"),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(values: dict[str, Any], wanted: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.create({**GIVEN, **values})
    assert wanted in str(caught.value)
    assert not PYDANTIC.search(str(caught.value))


def test_flags_are_named_where_flags_were_given() -> None:
    with pytest.raises(RecipeError, match=r"^FACES is needed; --max-images: give .* not 3$"):
        Recipe.create({"teacher": "t", "max_images": 3}, FLAGS)


def test_keywords_of_python() -> None:
    with pytest.raises(EfqError, match=r"bitz: .* did you mean bits\?"):
        compress("t.onnx", "f", bitz="w8a8")


def test_written_and_read_again(tmp_path: Path) -> None:
    made = Recipe.create({**GIVEN, "epochs": 3, "flip": True, "layers": {"a*": 4}})
    path = tmp_path / "r.yaml"
    path.write_text(made.to_yaml())
    assert Recipe.read(path) == made
    assert Recipe.read(path, {"epochs": 5, "flip": False}).training.epochs == 5
    assert not Recipe.read(path, {"flip": False}).evaluation.flip


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"step_lr": 1e-3}, ("range_lr", 1e-3)),
        ({"images_each": 3}, ("images_per_identity", 3)),
        ({"devices": 1, "epochs": 1}, ("epochs", 1)),
    ],
)
def test_old_recipes(tmp_path: Path, values: dict[str, Any], wanted: tuple[str, float]) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**GIVEN, **values}))
    assert getattr(Recipe.read(path).training, wanted[0]) == wanted[1]


def test_a_part_that_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("teacher: t\nfaces: f\ntraining: fast\n")
    with pytest.raises(RecipeError, match="training: give a table"):
        Recipe.read(path, {"epochs": 2})
    with pytest.raises(RecipeError, match="no such file"):
        Recipe.read(tmp_path / "gone.yaml")


def test_every_setting_says_what_it_is() -> None:
    names = settings(Recipe)
    assert len(names) > 35
    assert all(field.description for field in names.values())


def test_a_recipe_is_made_without_what_computes() -> None:
    code = (
        "import sys; from efquantface.recipe import Recipe\n"
        "Recipe.create({'teacher': 't', 'faces': 'f', 'bits': '8', 'budget': '60%', 'prune': 0.5})\n"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'scipy', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("bits", "told", "wide"),
    [
        ("w4a8", None, True),
        ("w6a8", None, True),
        ("w4a4", None, False),
        ("w4a8", False, False),
        ("w4a4", True, True),
    ],
)
def test_depthwise_weights_keep_eight_bits_beside_activations_of_eight(
    bits: str, told: bool | None, wide: bool
) -> None:
    given = {"teacher": "t.onnx", "faces": "faces", "bits": bits, "wide_depthwise": told}
    assert Recipe.create(given, "test").scheme.wide_depthwise is wide
