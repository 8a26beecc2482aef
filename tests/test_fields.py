"""What pydantic finds wrong, in plain sentences."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from efquantface.fields import extra, flag_name, sentences, settings


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: float = Field(1.0, gt=0, lt=2)
    ways: tuple[str, ...] = ()


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    count: int = Field(3, ge=1, le=1000, json_schema_extra={"group": "Counts", "flag": "--many"})
    kind: Literal["round", "square"] = "round"
    told: bool = False
    either: float | str | None = None
    table: dict[str, str] = {}
    part: Part = Part()


def said(**values: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate({"name": "n", **values})
    return sentences(caught.value, Whole)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"name": None}, "name: give a text, not None"),
        ({"name": 3}, "name: give a text, not 3"),
        ({"count": 0}, "count: give a whole number from 1 up to 1,000, not 0"),
        ({"count": 1001}, "count: give a whole number from 1 up to 1,000, not 1001"),
        ({"count": "x"}, "count: give a whole number from 1 up to 1,000, not 'x'"),
        ({"count": 1.5}, "count: give a whole number from 1 up to 1,000, not 1.5"),
        ({"count": [1]}, "count: give a whole number from 1 up to 1,000, not [1]"),
        ({"kind": "sqare"}, "kind: give round or square, not 'sqare'; did you mean square?"),
        ({"kind": 8}, "kind: give round or square, not 8"),
        ({"told": "maybe"}, "told: give true or false, not 'maybe'"),
        ({"told": 2}, "told: give true or false, not 2"),
        ({"either": []}, "either: give a number or a text, not []"),
        ({"table": 3}, "table: give a table of NAME: VALUE, not 3"),
        ({"part": {"size": 2}}, "size: give a number above 0 below 2, not 2"),
        ({"part": {"size": "nan"}}, "size: give a number above 0 below 2, not 'nan'"),
        ({"part": {"ways": 1}}, "ways: give a list, not 1"),
        ({"part": 4}, "part: give a table of size, ways, not 4"),
        ({"cuont": 4}, "cuont: there is no such setting; did you mean count?"),
        ({"part": {"sise": 4}}, "sise: there is no such setting; did you mean size?"),
        ({"nothing_alike": 4}, "nothing_alike: there is no such setting"),
    ],
)
def test_a_sentence_a_field(values: dict[str, Any], sentence: str) -> None:
    assert said(**values) == [sentence]


def test_all_that_is_wrong_is_said() -> None:
    assert len(said(count=0, kind="x", told="maybe")) == 3
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate({})
    assert sentences(caught.value, Whole, str.upper) == ["NAME is needed"]


def test_flags_of_fields() -> None:
    assert list(settings(Whole)) == [
        "name",
        "count",
        "kind",
        "told",
        "either",
        "table",
        "size",
        "ways",
    ]
    assert flag_name(Whole, "count") == "--many"
    assert flag_name(Whole, "ways") == "--ways"
    assert extra(settings(Whole)["count"], "group") == "Counts"
    assert extra(settings(Whole)["kind"], "group") is None
