"""Small texts of others: the value that they hold, or a ValueError."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from efquantface.contract import FaceContract
from efquantface.errors import ContractError, RecipeError
from efquantface.reading import is_number, parse_json, parse_yaml
from efquantface.recipe import Recipe

BOMB = "a: &a [x, x]\n" + "".join(
    f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize("text", ["²", "٣", "-1", "+1", "1_0", "", " 1", "9" * 5000, "1.0"])
def test_numbers_are_ascii_digits(text: str) -> None:
    assert not is_number(text)


@given(st.integers(0, 10**18 - 1))
def test_numbers(value: int) -> None:
    assert is_number(str(value))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text("abc: -#é", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
)


@given(PLAIN)
def test_yaml_as_the_safe_loader_reads_it(value: object) -> None:
    text = yaml.safe_dump(value)
    if "*id" not in text:  # the dumper's own aliases, of objects that are one
        assert parse_yaml(text) == yaml.safe_load(text) == value


@pytest.mark.parametrize(
    "text", [BOMB, "[" * 5000, "a: " + "{a: " * 3000, "a: [", "!!python/name:os"]
)
def test_yaml_that_is_none(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_yaml(text)
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"r\.yaml: is not YAML"):
        Recipe.read(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", '{"mean": 1}', "9" * 5000])
def test_contracts_that_are_none(text: str) -> None:
    with pytest.raises(ContractError, match="somewhere"):
        FaceContract.from_json(text, "somewhere")


def test_json() -> None:
    assert parse_json('{"a": [1, 2]}') == {"a": [1, 2]}
    with pytest.raises(ValueError, match="deeply"):
        parse_json("[" * 100_000)
