"""Text files of others: rows, or one error with the file and the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from efquantface.data.texts import read_table, text_of
from efquantface.errors import DataError
from efquantface.evaluation.benchmarks.pair_lists import read_csv, read_lfw
from efquantface.evaluation.groups import read_groups


def test_rows_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffa,b\r\n"x\ny",1\r\nz\r\n'.encode())
    rows = list(read_table(path, ("a", "b")))
    assert rows == [(3, {"a": "x\ny", "b": "1"}), (4, {"a": "z", "b": ""})]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("name,group\nZo\xeb,a\n".encode("latin-1"), "cannot be read as text"),
        (b"name\nx\n", ":1: the columns name, group are needed, has name"),
        (b"", ":1: the columns name, group are needed, has none"),
        (b'name,group\n"' + b"x" * 200_000 + b'",a\n', ":2: is no CSV"),
        (b"name,group\nx,a\nx,b\n", ":3: 'x' is in two groups"),
        (b"\xff\xfe" + "name,group\nx".encode("utf-16-le")[:-1], "cannot be read as text"),
    ],
)
def test_tables_that_are_none(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(DataError) as told:
        read_groups(path)
    assert str(path) in str(told.value)
    assert said in str(told.value)
    assert len(str(told.value)) < 400


@pytest.mark.parametrize("number", ["²", "٣", "9" * 5000, "-1", "nan"])
def test_numbers_that_are_none(number: str, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(f"a,b,same,fold\nx,y,1,{number}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"p\.csv:2: fold is"):
        read_csv(path)
    path = tmp_path / "pairs.txt"
    path.write_text(f"10\t300\nX\t1\t{number}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"pairs\.txt"):
        read_lfw(path)


def test_line_ends_and_marks(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    for data in (b"a\r\nb\r", b"\xef\xbb\xbfa\nb\n", "a\nb\n".encode("utf-16")):
        path.write_bytes(data)
        assert text_of(path).split() == ["a", "b"]
