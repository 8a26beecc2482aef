"""Results as one line, as records and as a table of pandas."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import make_faces
from efquantface.errors import RuntimeMissingError
from efquantface.evaluation.metrics import supported_fars, why_left_out
from efquantface.evaluation.result import Evaluation
from efquantface.evaluation.run import evaluate_set
from efquantface.evaluation.sets import EvalSet

RNG = np.random.default_rng(3)


@pytest.fixture
def evaluation() -> Evaluation:
    rows = np.repeat(RNG.normal(size=(12, 8)), 4, axis=0)
    teacher, student = (
        (rows + spread * RNG.normal(size=rows.shape)).astype(np.float32) for spread in (0.3, 0.5)
    )
    return evaluate_set(EvalSet("mine", make_faces(), None, True), teacher, student)


def test_one_line_each(evaluation: Evaluation) -> None:
    for value in (evaluation, evaluation[0]):
        assert "\n" not in repr(value)
        assert "mine all pairs" in repr(value)
        assert len(repr(value)) < 150
    assert repr(Evaluation()) == "Evaluation()"


def test_records_hold_every_number(evaluation: Evaluation) -> None:
    records = evaluation.records()
    metrics = [m for result in evaluation for m in result.metrics]
    assert [r["metric"] for r in records] == [m.name for m in metrics]
    assert len({tuple(sorted(r)) for r in records}) == 1  # a table
    for record, metric in zip(records, metrics, strict=True):
        for who in ("teacher", "student", "loss"):
            assert record[who] == getattr(metric, who)
            interval = getattr(metric, f"{who}_interval")
            assert (record[f"{who}_low"], record[f"{who}_high"]) == (interval or (None, None))
    values = evaluation[0].values()
    assert values["cosine to teacher/student"] == records[-1]["student"] or "student" in records[-1]
    assert None not in values.values()
    assert "cosine to teacher/teacher" not in values


def test_a_frame_where_pandas_is_there(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda rows: rows))
    assert evaluation.to_frame() == evaluation.records()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(RuntimeMissingError, match=r"pip install pandas, or take records\(\)"):
        evaluation.to_frame()


@pytest.mark.parametrize("impostors", [1, 29, 30, 31, 299, 3000, 3001, 29_999, 30_000, 10**7])
def test_reasons_agree_with_what_is_supported(impostors: int) -> None:
    """Whatever of 0.1 to 0.0001 is missing is named, with the least number of pairs it needs."""
    said = why_left_out(10, impostors)
    missing = [f for f in (0.1, 0.01, 0.001, 0.0001) if f not in supported_fars(impostors)]
    assert bool(said) == bool(missing)
    if missing:
        needed = int(said[0].split("needs ")[1].split(" ")[0].replace(",", ""))
        assert missing[0] in supported_fars(needed)
        assert missing[0] not in supported_fars(needed - 1)
        assert f"there are {impostors:,}" in said[0]


def test_no_pairs_of_a_kind() -> None:
    assert why_left_out(0, 100) == ["TAR@FAR left out: there are no genuine pairs"]
    assert why_left_out(100, 0) == ["TAR@FAR left out: there are no impostor pairs"]


def test_left_out_is_stored(evaluation: Evaluation) -> None:
    """12 people of 4 images have 1,056 impostor pairs."""
    assert evaluation[0].as_dict()["left_out"] == [
        "TAR@FAR=0.001 and below left out: needs 3,000 impostor pairs, there are 1,056"
    ]
