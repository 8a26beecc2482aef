"""The fuzzer itself: what must not happen is noticed; an id gives the input again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from random import Random

import pytest

from efquantface.errors import DataError
from fuzz.mutate import mutate_bytes, mutate_plain, mutate_text
from fuzz.pickled import mutate_pickle
from fuzz.readers import TARGETS
from fuzz.runner import Reader, run
from fuzz.target import Files, Target


def seeds(folder: Path) -> list[Files]:
    return [{"f": b"0"}]


def next_one(files: Files, draw: Random) -> Files:
    return {"f": bytes([draw.randrange(48, 58)])}


def target(bad: object, seconds: float = 0.3) -> Target:
    """Does something bad at every ``7``."""

    def read(folder: Path) -> None:
        digit = (folder / "f").read_bytes()
        if digit == b"7":
            bad()  # type: ignore[operator]
        if digit > b"7":
            raise DataError("more than seven")

    return Target("planted", seeds, read, next_one, seconds=seconds)


def spin() -> None:
    while True:
        pass


def swallowed() -> None:
    try:
        subprocess.run(["true"], check=False)
    except Exception:
        return


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (lambda: {}["x"], "KeyError"),
        (lambda: bytes(4 << 30), "MemoryError"),
        (lambda: Path("/etc/hostname").read_text(), "touched open"),
        (lambda: exec("1"), "touched exec"),
        (swallowed, "touched subprocess.Popen"),
        (lambda: __import__("socket").socket(), "touched socket"),
        (spin, "more than 0.3 s"),
        (lambda: os._exit(3), "process ended (3)"),
    ],
)
def test_what_must_not_happen_is_noticed(bad: object, told: str) -> None:
    outcome = run(target(bad), seed=5, inputs=40, seconds=None)
    assert outcome.tried == 40 or told.startswith("process")
    (what,) = outcome.failures
    assert what.startswith(told), what
    assert len(outcome.failures[what]) >= 1
    assert outcome.kinds["typed error"] > 0


def test_ids_give_inputs_again(tmp_path: Path) -> None:
    reader = Reader(TARGETS["csv"], tmp_path, limits=False)
    assert reader.files(3, 14) == reader.files(3, 14)
    assert len({str(reader.files(3, n)) for n in range(50)}) > 25


def test_mutators_draw_from_their_argument_alone() -> None:
    data = bytes(range(200))
    for mutate, given in (
        (mutate_bytes, data),
        (mutate_text, b"a b\nc"),
        (mutate_plain, {"a": [1, 2]}),
        (mutate_pickle, b"\x80\x02](K\x01K\x02e."),
    ):
        made = [repr(mutate(given, Random(n))) for n in range(30)]  # type: ignore[operator]
        assert made == [repr(mutate(given, Random(n))) for n in range(30)]  # type: ignore[operator]
        assert len(set(made)) > 10
