"""The page of networks says what tests cover, and nothing else."""

from __future__ import annotations

import ast

import pytest

from networks_table import ROWS, rendered, stored
from project import ROOT

NAMED = sorted({test for row in ROWS for tests in row.kinds.values() for test in tests})


def test_the_page_holds_the_table() -> None:
    assert stored() == rendered(), "run python tests/networks_table.py"


@pytest.mark.parametrize("name", NAMED)
def test_a_named_test_is_there(name: str) -> None:
    file, _, function = name.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert function in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


def test_every_kind_is_covered() -> None:
    assert all(tests for row in ROWS for tests in row.kinds.values())
