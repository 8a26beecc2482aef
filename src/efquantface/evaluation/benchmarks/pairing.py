"""Finds the images that a list of pairs names, and those that are missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import numpy.typing as npt

from efquantface.data.faces import FaceSet
from efquantface.data.images import SUFFIXES
from efquantface.data.verification_bin import FOLDS
from efquantface.errors import DataError
from efquantface.evaluation.sets import Pairs


@dataclass(frozen=True)
class Row:
    """A pair of names (with or without suffix), whether it is genuine, and its fold."""

    a: str
    b: str
    same: bool
    fold: int


@dataclass(frozen=True)
class Located:
    """The images that a list names.

    Attributes:
        paths: relative to the folder that was searched.
        parts: how many last parts of a path identify an image.
    """

    paths: list[str]
    parts: int


def locate(paths: Sequence[str], rows: Sequence[Row], where: str, listed: str) -> Located:
    """Find a list's images by the last parts of their paths: all parts in the list, or the name alone.

    Args:
        paths: of all images, relative to ``where``.
        rows: the pairs.
        where, listed: the folder and the list, for messages.

    Raises:
        DataError: none of the images is there, or several have one name.
    """
    wanted = {without_suffix(name) for row in rows for name in (row.a, row.b)}
    depth = max(len(PurePath(name).parts) for name in wanted)
    best = Located([], depth)
    for parts in sorted({depth, 1}, reverse=True):
        tails = {tail(name, parts) for name in wanted}
        if len(tails) == len(wanted):  # a name alone may stand for several
            found = [p for p in paths if tail(p, parts) in tails]
            if len({tail(p, parts) for p in found}) > len(
                {tail(p, best.parts) for p in best.paths}
            ):
                best = Located(found, parts)
    if not best.paths:
        raise DataError(f"{where}: holds none of the images that {listed} lists")
    aligned = [p for p in best.paths if "aligned" in p.lower()]
    if aligned and _repeated(best):
        best = Located(aligned, best.parts)
    if _repeated(best):
        raise DataError(
            f"{where}: has several images of one name that {listed} lists "
            f"({', '.join(_several(best))}); keep one folder of them"
        )
    return best


def _repeated(located: Located) -> bool:
    return len({tail(p, located.parts) for p in located.paths}) < len(located.paths)


def _several(located: Located) -> list[str]:
    """The first paths that share their name."""
    groups: dict[str, list[str]] = {}
    for path in located.paths:
        groups.setdefault(tail(path, located.parts), []).append(path)
    return next(group for group in groups.values() if len(group) > 1)[:3]


def resolve(rows: Sequence[Row], faces: FaceSet, listed: str, parts: int | None = None) -> Pairs:
    """Turn names into indices; pairs of images that are missing or cannot be read are left out.

    Args:
        rows: the pairs.
        faces: the images.
        listed: the list, for messages.
        parts: how many last parts of a name are compared; None for all of it.

    Raises:
        DataError: no pair is left.
    """
    known = {tail(name, parts): i for i, name in enumerate(faces.names)}
    unreadable = {tail(name, parts) for name, _ in faces.skipped}
    kept: list[tuple[int, int, bool, int]] = []
    dropped: list[str] = []
    missing: dict[str, None] = {}
    for row in rows:
        a, b = tail(row.a, parts), tail(row.b, parts)
        if a in known and b in known:
            kept.append((known[a], known[b], row.same, row.fold))
            continue
        dropped.append(f"{row.a} - {row.b}")
        gone = ((a, row.a), (b, row.b))
        missing |= {name: None for at, name in gone if at not in known and at not in unreadable}
    if not kept:
        first = f"; the first that is not there: {next(iter(missing))!r}" if missing else ""
        raise DataError(f"{listed}: no pair is left of {len(rows):,}{first}")
    a_index, b_index, same, folds = (np.asarray(c) for c in zip(*kept, strict=True))
    return Pairs(
        a_index.astype(np.int64),
        b_index.astype(np.int64),
        same.astype(bool),
        _usable(same.astype(bool), folds.astype(np.int64)),
        dropped,
        list(missing),
    )


def _usable(same: npt.NDArray[np.bool_], folds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The folds (P,), or ten new ones where the pairs outside a fold are of one kind."""
    return next((f for f in (folds, spread_evenly(same)) if _can_be_scored(same, f)), folds)


def _can_be_scored(same: npt.NDArray[np.bool_], folds: npt.NDArray[np.int64]) -> bool:
    numbers = np.unique(folds)
    return len(numbers) > 1 and all(len(np.unique(same[folds != n])) == 2 for n in numbers)


def spread_evenly(same: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Ten folds (P,) in the list's order, with genuine and impostor pairs spread evenly over them."""
    folds = np.zeros(len(same), np.int64)
    for kind in (True, False):
        places = np.flatnonzero(same == kind)
        folds[places] = np.arange(len(places)) * FOLDS // max(len(places), 1)
    return folds


def without_suffix(name: str) -> str:
    """A name without an image file's suffix."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in SUFFIXES else name


def tail(name: str, parts: int | None) -> str:
    """The last parts of a name (all of them for None), without an image's suffix."""
    stem = without_suffix(name)
    return stem if parts is None else "/".join(PurePath(stem).parts[-parts:])


def person_of(name: str) -> str:
    """The person of an image called ``Name_0001.jpg``.

    >>> person_of("lfw/Ann_Lee_0002.jpg")
    'Ann_Lee'
    """
    stem = tail(name, 1)
    person, _, number = stem.rpartition("_")
    return person if person and number.isdigit() else stem


def prefixes(paths: Iterable[str], parts: int) -> list[str]:
    """The folders in front of the last ``parts`` of some paths."""
    return sorted({str(PurePath(*PurePath(p).parts[:-parts])) for p in paths})
