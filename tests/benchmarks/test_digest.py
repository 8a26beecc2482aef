"""What counts as another recipe."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.runner import digest
from benchmarks.runner.digest import LEFT_OUT, TRAINING_LEFT_OUT, recipe_digest
from benchmarks.runner.suites import SUITES, cells, chosen
from efquantface.distill.settings import TrainSettings
from efquantface.recipe import Recipe


def of(**values: Any) -> str:
    return recipe_digest(Recipe.create({"teacher": "t.onnx", "faces": "faces", **values}))


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"teacher": "/elsewhere/t.onnx"},
        {"faces": "/elsewhere/faces"},
        {"threads": 7},
        {"device": "cuda"},
        {"devices": 2},
        {"memory_gb": 3.0},
        {"eval": ("lfw=/elsewhere/lfw",)},
        {"flip": True},
        {"benchmark": False},
        {"seed": 5},
        {"bits": "8"},  # another spelling of the default
    ],
)
def test_places_machines_and_seeds_do_not_count(elsewhere: dict[str, Any]) -> None:
    assert of(**elsewhere) == of()


def test_what_decides_the_numbers_counts() -> None:
    changes: list[dict[str, Any]] = [
        {"bits": "w4a8"},
        {"epochs": 3},
        {"lr": 1e-3},
        {"prune": 0.25, "bits": "w8a8", "epochs": 2},
        {"full_range": True},
        {"preprocess": "imagenet"},
        {"max_images": 300},
        {"hold_out": 0.2},
        {"layers": {"conv*": "w4a8"}},
        {"metric": "ours"},
        {"rounding": "nearest"},
    ]
    found = [of(), *(of(**change) for change in changes)]
    assert len(set(found)) == len(found)


def test_another_method_is_another_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    before = of()
    monkeypatch.setattr(digest, "METHOD", digest.METHOD + 1)
    assert of() != before


def test_every_setting_that_is_left_out_is_there() -> None:
    assert set(Recipe.model_fields) >= LEFT_OUT
    assert set(TrainSettings.model_fields) >= TRAINING_LEFT_OUT


@pytest.mark.parametrize("suite", SUITES)
def test_cells_are_valid_and_named_once(suite: str) -> None:
    found = cells(suite)
    assert len({cell.full for cell in found}) == len(found) > 0
    for cell in found:
        assert (cell.digest is None) == (cell.way != "compress")


def test_seeds_share_a_digest_and_bits_do_not() -> None:
    found = {cell.full: cell.digest for cell in cells("bits", 2)}
    assert found["y1/w8a8 seed 0"] == found["y1/w8a8 seed 1"] != found["y1/w6a8 seed 0"]


def test_rows_are_chosen_by_beginning_or_pattern() -> None:
    found = cells("bits")
    assert [c.full for c in chosen(found, ["mobileface2/w8a8 seed 0"])] == [
        "mobileface2/w8a8 seed 0"
    ]
    assert {c.network for c in chosen(found, ["y1/", "mobile*/w4a4*"])} == {"y1", "mobileface2"}
    assert chosen(found, []) == found
    assert chosen(found, ["w8a8"]) == []
