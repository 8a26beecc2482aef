"""Checks ``--eval`` without opening an image, so that a wrong folder is refused at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from efquantface.data.images import SUFFIXES
from efquantface.errors import DataError, did_you_mean
from efquantface.runtime.backends import ENDINGS

AGEDB = "*protocol_30*.mat"
TWO_LINES = ("pairs_CALFW.txt", "pairs_CPLFW.txt")
_LISTS = ("*.bin", AGEDB, "*pair*.txt", "meta/*_face_tid_mid.txt")
_FOLDERS = (("Protocol", "Split"), ("txts",), ("test", "txts"), ("gallery",))
_ALONE = frozenset({*ENDINGS, ".pt", ".pth", ".safetensors", ".rec", ".parquet"})


def name_and_path(text: str) -> tuple[str, Path]:
    """Name and path of ``NAME=PATH`` or ``PATH``.

    Raises:
        DataError: ``NAME`` or ``PATH`` is empty.
    """
    name, separator, place = text.partition("=")
    if not separator:
        return Path(text).stem, Path(text)
    if not name or not place:
        raise DataError(f"--eval {text!r}: write NAME=PATH, for example lfw=DIR or pairs=FILE.csv")
    return name, Path(place)


def check_eval(text: str) -> None:
    """Check that a path holds a benchmark, a list of pairs, or several people.

    Raises:
        DataError: it does not; the text says what is missing.
    """
    name, path = name_and_path(text)
    if path.is_file():
        if path.suffix.lower() in _ALONE | SUFFIXES:
            raise DataError(
                f"--eval {path}: is neither a .bin nor a list of pairs (a CSV of a, b, same)"
            )
        return
    if not path.is_dir():
        beside = path.absolute().parent
        there = [p.name for p in beside.iterdir()] if beside.is_dir() else []
        raise DataError(
            f"{path}: no such folder or file; --eval takes PATH or NAME=PATH, for example lfw=DIR"
            f"{did_you_mean(path.name, there)}"
        )
    if name != "folder" and _is_benchmark(path):
        return
    if name == "lfw":
        raise DataError(f"{path / 'pairs.txt'}: no such file; LFW's pair list belongs there")
    _check_people(path)


def _is_benchmark(path: Path) -> bool:
    lists = any(True for pattern in _LISTS for _ in path.glob(pattern))
    return lists or any(path.joinpath(*parts).is_dir() for parts in _FOLDERS)


def _check_people(path: Path) -> None:
    """Check that two subfolders have images, so that there are pairs to score.

    Raises:
        DataError: there are fewer.
    """
    if (path / "train.rec").is_file():
        return
    people: list[str] = []
    loose = False
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir():
                people += [entry.name] * any(_images(Path(entry.path)))
            else:
                loose = loose or Path(entry.name).suffix.lower() in SUFFIXES
            if len(people) == 2:
                return
    known = "; other benchmarks are recognized by their lists of pairs, and none is there"
    if people:
        raise DataError(
            f"--eval {path}: all images are of {people[0]}; all pairs need two people or more, "
            f"each a subfolder{known}"
        )
    if loose:
        raise DataError(
            f"--eval {path}: holds images and does not say who is who; all pairs need two people "
            f"or more, each a subfolder{known}"
        )
    raise DataError(f"--eval {path}: holds no images{known}")


def _images(folder: Path) -> Iterator[bool]:
    """Yields True once, if there is an image anywhere below."""
    for _, _, names in os.walk(folder):
        if any(Path(name).suffix.lower() in SUFFIXES for name in names):
            yield True
            return
