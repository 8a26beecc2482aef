"""Which cells are computed, and which are there already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.runner import rows, run
from benchmarks.runner.evaluation import place, summary
from benchmarks.runner.run import Call, run_cells
from benchmarks.runner.suites import Cell, cells, chosen
from efquantface.errors import DataError
from efquantface.evaluation.result import Curves, Metric, ProtocolResult

CELL = chosen(cells("bits"), ["y1/w8a8 seed 0"])[0]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The cells that were computed; rows go to a folder of the test's own."""
    found: list[str] = []

    def compressed(cell: Cell, call: Call, folder: Path, teacher: Any) -> rows.Row:
        found.append(cell.full)
        sets = {name: {"set": text.rpartition("/")[2]} for name, text in call.sets(cell).items()}
        return {"mb": 1.0, **sets}

    monkeypatch.setattr(rows, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(run, "load_model", lambda *_, **__: None)
    monkeypatch.setattr(run, "_compressed", compressed)
    return found


@pytest.fixture
def call(tmp_path: Path) -> Call:
    return Call(tmp_path / "shared", tmp_path / "out")


def test_a_finished_row_is_not_computed_again(made: list[str], call: Call) -> None:
    wanted = chosen(cells("bits"), ["y1/w8a8 seed"])
    assert run_cells(wanted[:1], call) == 0
    assert run_cells(wanted, call) == 0
    assert made == ["y1/w8a8 seed 0", "y1/w8a8 seed 1", "y1/w8a8 seed 2"]
    assert len(rows.read("bits")) == 3


def test_a_row_says_where_it_is_from(made: list[str], call: Call) -> None:
    run_cells([CELL], call)
    (row,) = rows.read("bits")
    assert row["recipe"] == CELL.digest
    assert (row["network"], row["name"], row["seed"], row["faces"]) == ("y1", "w8a8", 0, "faces6k")
    assert row["commit_is"] == rows.MADE
    assert row["date"]
    assert row["processor"]
    assert "onnxruntime" in row["packages"]


@pytest.mark.parametrize("recipe", [None, "000000000000"])
def test_a_row_of_another_recipe_is_replaced(
    made: list[str], call: Call, recipe: str | None
) -> None:
    old = {**call.key(CELL), "recipe": recipe, "mb": 2.0}
    other = {**old, "seed": 7}
    rows.write("bits", [old, other])
    run_cells([CELL], call)
    assert made == [CELL.full]
    assert {row["seed"]: row["mb"] for row in rows.read("bits")} == {0: 1.0, 7: 2.0}


def test_a_second_set_that_is_missing_is_computed(
    made: list[str], call: Call, tmp_path: Path
) -> None:
    run_cells([CELL], call)
    judged = replace(call, judge=tmp_path / "judge")
    run_cells([CELL], judged)
    run_cells([CELL], judged)
    run_cells([CELL], call)  # has more than was asked for
    assert made == [CELL.full] * 2


def test_another_training_set_is_another_row(made: list[str], call: Call, tmp_path: Path) -> None:
    union = replace(call, faces=tmp_path / "union")
    run_cells([CELL], call)
    run_cells([CELL], union)
    assert sorted(row["faces"] for row in rows.read("bits")) == ["faces6k", "union"]
    assert call.folder(CELL) != union.folder(CELL)


def test_a_quick_look_leaves_the_rows_alone(made: list[str], call: Call) -> None:
    quick = replace(call, quick=True)
    run_cells([CELL], quick)
    assert rows.read("bits") == []
    assert len(rows.read("bits", call.out)) == 1
    assert call.folder(CELL) != quick.folder(CELL)


def test_a_failure_is_said_and_the_others_go_on(
    made: list[str], call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compressed = run._compressed

    def failing(cell: Cell, *rest: Any) -> rows.Row:
        if cell.seed == 0:
            raise DataError("no faces there")
        return compressed(cell, *rest)

    monkeypatch.setattr(run, "_compressed", failing)
    assert run_cells(chosen(cells("bits"), ["y1/w8a8 seed"]), call) == 1
    assert made == ["y1/w8a8 seed 1", "y1/w8a8 seed 2"]
    assert "y1/w8a8 seed 0: no faces there" in capsys.readouterr().out


def test_dlibs_crops_have_to_be_given(
    made: list[str], call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cells(chosen(cells("networks"), ["dlib/"]), call) == 0
    assert made == []
    assert "--dlib FACES LFW" in capsys.readouterr().out


def test_keep_replaces_the_row_of_the_same_key_only(tmp_path: Path) -> None:
    key = {"network": "y1", "name": "w8a8", "seed": 0, "faces": "faces6k"}
    rows.keep("processors", {**key, "kind": "x86 with VNNI", "mb": 1}, tmp_path)
    rows.keep("processors", {**key, "kind": "ARM", "mb": 2}, tmp_path)
    rows.keep("processors", {**key, "kind": "ARM", "mb": 0.12345678}, tmp_path)
    found = {row["kind"]: row["mb"] for row in rows.read("processors", tmp_path)}
    assert found == {"x86 with VNNI": 1, "ARM": 0.123457}


def test_metrics_are_taken_from_their_own_protocol() -> None:
    def result(protocol: str, base: float) -> ProtocolResult:
        names = ("accuracy", "TAR@FAR=0.001", "TAR@FAR=0.0001")
        metrics = [Metric(name, base, None, base - 0.1, None, 0.1, (0.0, 0.2)) for name in names]
        counts = {"genuine": int(100 * base), "impostor": 9, "images": 5}
        return ProtocolResult(protocol, counts, "flip off", metrics, Curves())

    both = summary([result("lfw pairs", 0.9), result("lfw all pairs", 0.8)])
    assert both["1e-3 pairs"][0] == both["accuracy"][0] == 0.9
    assert both["1e-3"][0] == both["1e-4"][0] == 0.8
    assert both["1e-4"][2:] == [0.1, 0.0, 0.2]
    assert both["pairs"] == [80, 9]
    alone = summary([result("folder all pairs", 0.7)])
    assert "1e-3 pairs" not in alone
    assert alone["1e-3"][0] == 0.7


def test_a_folder_of_people_is_taken_as_one(tmp_path: Path) -> None:
    assert place(tmp_path) == f"folder={tmp_path}"
    (tmp_path / "pairs.txt").touch()
    assert place(tmp_path) == f"{tmp_path.name}={tmp_path}"
