"""Targets as users write them."""

from __future__ import annotations

import pytest

from efquantface.errors import RecipeError
from efquantface.recipe import Recipe
from efquantface.target.goal import Target


@pytest.mark.parametrize(
    ("text", "far", "points", "size", "ms"),
    [
        ("TAR@1e-4 -0.3", 1e-4, 0.3, None, None),
        ("tar@FAR=0.001 - 1", 1e-3, 1.0, None, None),
        ("TAR@1e-5-0.25", 1e-5, 0.25, None, None),
        ("600KB", None, None, "600KB", None),
        ("60%", None, None, "60%", None),
        ("2.5 ms", None, None, None, 2.5),
    ],
)
def test_a_target_is_read(
    text: str, far: float | None, points: float | None, size: str | None, ms: float | None
) -> None:
    assert Target.parse(text) == Target(far, points, size, ms)


@pytest.mark.parametrize(
    "text",
    ["", "small", "TAR -0.3", "TAR@2 -0.3", "TAR@0 -1", "TAR@1e-4", "0ms", "-3ms", "TAR@1.2.3 -1"],
)
def test_what_is_no_target_is_refused_by_name(text: str) -> None:
    with pytest.raises(RecipeError, match="target"):
        Target.parse(text)


@pytest.mark.parametrize(
    ("other", "named"),
    [({"prune": 0.25}, "prune"), ({"budget": "60%"}, "budget"), ({"bits": "w4a8"}, "bits"),
     ({"devices": 2}, "devices"), ({"layers": {"*": "w4a8"}}, "layers")],
)  # fmt: skip
def test_a_target_stands_alone(other: dict[str, object], named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        Recipe.create({"teacher": "t", "faces": "f", "target": "600KB", **other})
