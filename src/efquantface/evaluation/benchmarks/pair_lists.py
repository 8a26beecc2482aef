"""Reads the pair lists of published benchmarks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from efquantface.data.matlab import Struct, read_variable
from efquantface.data.texts import read_table, text_of
from efquantface.data.verification_bin import FOLDS, contiguous_folds
from efquantface.errors import DataError
from efquantface.evaluation.benchmarks.pairing import Row, spread_evenly
from efquantface.reading import is_number


def read_lfw(path: Path) -> list[Row]:
    """LFW's pairs.txt and RFW's: lines ``name i j`` (genuine) and ``name i name j`` (impostor).

    A header may give folds and pairs per fold, or pairs alone (one fold). It counts genuine pairs, or
    all pairs. Without a header there are ten folds of equal length.

    Raises:
        DataError: a line is malformed (the text has its number), or the header gives another number.
    """
    lines = _lines(path)
    first = lines[0][1] if lines else []
    header = bool(first) and len(first) <= 2 and all(is_number(x) for x in first)
    rows: list[tuple[str, str, bool]] = []
    for number, words in lines[header:]:
        if len(words) == 3 and is_number(words[1]) and is_number(words[2]):
            a, b = (words[0], words[1]), (words[0], words[2])
        elif len(words) == 4 and is_number(words[1]) and is_number(words[3]):
            a, b = (words[0], words[1]), (words[2], words[3])
        else:
            raise DataError(f"{path}:{number}: {' '.join(words)!r} is not a pair line")
        names = [f"{name}/{name}_{int(index):04d}" for name, index in (a, b)]
        rows.append((names[0], names[1], len(words) == 3))
    if header:
        folds = max(int(first[0]), 1) if len(first) == 2 else 1
        promised = folds * int(first[-1]) * 2
        if len(rows) not in (promised, promised // 2):
            raise DataError(
                f"{path}: promises {promised} pairs, has {len(rows)} pairs; if you mean it, delete its "
                "first line"
            )
    else:
        folds = FOLDS
    return _folded(path, rows, folds)


def read_two_lines(path: Path) -> list[Row]:
    """CALFW's and CPLFW's lists: two lines ``image number`` per pair; 0 means an impostor pair.

    Raises:
        DataError: a line is malformed or has no second one, or the two lines of a pair disagree.
    """
    lines = _lines(path)
    for number, words in lines:
        if len(words) != 2 or not is_number(words[1]):
            raise DataError(f"{path}:{number}: {' '.join(words)!r} is not 'image number'")
    if len(lines) % 2:
        raise DataError(f"{path}: has {len(lines)} lines, a pair takes two")
    rows = []
    for (number, first), (_, second) in zip(lines[::2], lines[1::2], strict=True):
        if (first[1] == "0") != (second[1] == "0"):
            raise DataError(f"{path}:{number}: the two lines of the pair disagree")
        rows.append((first[0], second[0], first[1] != "0"))
    return _folded(path, rows, FOLDS)


def read_three_columns(path: Path) -> list[Row]:
    """Lines ``image image 1`` (genuine) or ``0`` or ``-1`` (impostor), in ten folds of equal length.

    Raises:
        DataError: a line is malformed; the text has its number.
    """
    rows = []
    for number, words in _lines(path):
        if len(words) != 3 or words[2] not in ("0", "1", "-1"):
            raise DataError(f"{path}:{number}: {' '.join(words)!r} is not 'image image 0|1'")
        rows.append((words[0], words[1], words[2] == "1"))
    return _folded(path, rows, FOLDS)


def read_cfp(protocol: Path, kind: str) -> list[Row]:
    """CFP's ``Protocol`` folder: image lists F and P, and ``Split/FF`` or ``FP`` of ten folds.

    Args:
        protocol: the folder.
        kind: ``FF`` (frontal-frontal) or ``FP`` (frontal-profile).

    Raises:
        DataError: a file is missing or malformed.
    """
    frontal = _cfp_images(protocol / "Pair_list_F.txt")
    second = _cfp_images(protocol / "Pair_list_P.txt") if kind == "FP" else frontal
    folds = sorted(p for p in (protocol / "Split" / kind).glob("*") if p.is_dir())
    if len(folds) < 2:
        raise DataError(f"{protocol / 'Split' / kind}: holds no folds")
    rows = []
    for fold, folder in enumerate(folds):
        for name, same in (("same.txt", True), ("diff.txt", False)):
            for number, words in _lines(folder / name, ","):
                numbers = [word.strip() for word in words]
                if len(numbers) != 2 or not all(is_number(n) for n in numbers):
                    raise DataError(f"{folder / name}:{number}: {words} is not a pair")
                i, j = int(numbers[0]), int(numbers[1])
                if i not in frontal or j not in second:
                    raise DataError(f"{folder / name}:{number}: no image {i}, {j} is listed")
                rows.append(Row(frontal[i], second[j], same, fold))
    return rows


def _cfp_images(path: Path) -> dict[int, str]:
    """Images by their number, as paths relative to the folder above ``Protocol``."""
    found: dict[int, str] = {}
    for number, words in _lines(path):
        if len(words) != 2 or not is_number(words[0]):
            raise DataError(f"{path}:{number}: {' '.join(words)!r} is not 'number image'")
        found[int(words[0])] = words[1].replace("\\", "/").removeprefix("../").removeprefix("./")
    return found


def read_agedb(path: Path) -> list[Row]:
    """AgeDB's ``04_FINAL_protocol_30_years.mat``: ten splits of 2 x n image names with their ages.

    The person is the first part of a name that is no number, as in ``0_MariaCallas_35_f``.

    Raises:
        DataError: it is no MATLAB file, or has no such splits.
    """
    splits = read_variable(path, "splits")
    if not isinstance(splits, np.ndarray):
        raise DataError(f"{path}: is no AgeDB protocol (splits is text)")
    rows = []
    for fold, split in enumerate(splits.reshape(-1)):
        columns = _first_field(split)
        if not isinstance(columns, np.ndarray) or columns.ndim != 2 or len(columns) != 2:
            what = getattr(columns, "shape", type(columns).__name__)
            raise DataError(f"{path}: is no AgeDB protocol (split {fold} is {what}, not 2 x pairs)")
        for first, second in columns.T:
            a, b = _first_field(first), _first_field(second)
            if not isinstance(a, str) or not isinstance(b, str):
                raise DataError(f"{path}: is no AgeDB protocol (split {fold} holds no names)")
            rows.append(Row(a, b, _person(a) == _person(b), fold))
    if not rows:
        raise DataError(f"{path}: is no AgeDB protocol (it lists no pairs)")
    return rows


def _first_field(value: Any) -> Any:
    """The first field inside nested structs and cells of one element."""
    while True:
        if isinstance(value, Struct):
            value = value.values[0] if value.values else None
        elif isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(-1)[0]
        else:
            return value


def _person(name: str) -> str:
    return next((part for part in name.split("_") if not part.isdigit()), name)


def read_csv(path: Path) -> list[Row]:
    """A CSV file with the columns a, b, same, and optionally fold.

    Raises:
        DataError: a column is missing, or a value cannot be used; the text has its line.
    """
    rows: list[Row] = []
    folded = False
    for line, row in read_table(path, ("a", "b", "same")):
        value = row["same"].strip().lower()
        if value not in ("0", "1", "true", "false"):
            raise DataError(f"{path}:{line}: same is {row['same'][:40]!r}, write 0 or 1")
        number = row["fold"].strip() if "fold" in row else "0"
        if not is_number(number):
            raise DataError(f"{path}:{line}: fold is {number[:40]!r}, not a number")
        same = value in ("1", "true")
        rows.append(Row(row["a"], row["b"], same, int(number)))
        folded = "fold" in row
    if not rows:
        raise DataError(f"{path}: lists no pairs")
    if folded:
        return rows
    folds = spread_evenly(np.asarray([row.same for row in rows]))
    return [replace(row, fold=int(fold)) for row, fold in zip(rows, folds, strict=True)]


def _lines(path: Path, separator: str | None = None) -> list[tuple[int, list[str]]]:
    """(number, words) of the lines that are not empty."""
    numbered = enumerate(text_of(path).splitlines(), start=1)
    return [(number, line.split(separator)) for number, line in numbered if line.strip()]


def _folded(path: Path, rows: list[tuple[str, str, bool]], folds: int) -> list[Row]:
    if not rows:
        raise DataError(f"{path}: lists no pairs")
    numbers = contiguous_folds(len(rows), folds)
    return [Row(*row, int(fold)) for row, fold in zip(rows, numbers, strict=True)]
