"""Evaluation sets: LFW-style folders with pairs.txt, any folder of identities, CSV pair lists."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet, load_faces, load_list
from efquantface.data.images import SUFFIXES
from efquantface.errors import DataError

KINDS = ("lfw", "folder", "pairs")
Progress = Callable[[int, int], None]


@dataclass
class Pairs:
    """Verification pairs as indices into a face set.

    Attributes:
        a, b: (P,) image indices.
        same: (P,) True for genuine pairs.
        folds: (P,) fold of each pair.
        dropped: pairs left out because an image of theirs could not be read.
    """

    a: npt.NDArray[np.int64]
    b: npt.NDArray[np.int64]
    same: npt.NDArray[np.bool_]
    folds: npt.NDArray[np.int64]
    dropped: list[str] = field(default_factory=list)


@dataclass
class EvalSet:
    """Faces with a protocol: listed pairs, all pairs of a folder, or both.

    Attributes:
        name: for tables.
        all_pairs: whether every pair of images is scored too (needs identities).
    """

    name: str
    faces: FaceSet
    pairs: Pairs | None
    all_pairs: bool


def load_eval(
    text: str, contract: FaceContract, *, resize: bool = False, progress: Progress | None = None
) -> EvalSet:
    """Load ``NAME=PATH``.

    ``lfw=DIR`` is a folder of identities with LFW's pairs.txt in it (listed pairs, and all pairs);
    ``folder=DIR`` all pairs of a folder of identities; ``pairs=FILE.csv`` a list with the columns
    a, b, same and paths relative to the list. Any other name is taken for what the path is.

    Raises:
        DataError: the path or its contents cannot be used.
        CropError: the faces are not crops of the contract's size.
    """
    name, separator, place = text.partition("=")
    if not separator or not name or not place:
        raise DataError(f"--eval {text!r}: write NAME=PATH, for example lfw=DIR or pairs=FILE.csv")
    path = Path(place)
    if path.is_file():
        return _from_csv(name, path, contract, resize, progress)
    listed = path / "pairs.txt"
    faces = load_faces(path, contract, resize=resize, progress=progress)
    if listed.is_file() and name != "folder":
        return EvalSet(name, faces, read_lfw_pairs(listed, faces), faces.has_identities)
    if name == "lfw":
        raise DataError(f"{listed}: no such file; LFW's pair list belongs into the folder")
    return EvalSet(name, faces, None, True)


def read_lfw_pairs(path: Path, faces: FaceSet) -> Pairs:
    """Read LFW's pairs.txt: ``name i j`` and ``name i name j`` lines after a header.

    Raises:
        DataError: a malformed line, or an image that the folder does not have.
    """
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines or not all(x.isdigit() for x in lines[0]) or len(lines[0]) > 2:
        raise DataError(f"{path}:1: expected the number of folds and pairs, as in LFW's View 2")
    folds = int(lines[0][0]) if len(lines[0]) == 2 else 1
    each = int(lines[0][-1])
    if len(lines) - 1 != folds * each * 2:
        raise DataError(
            f"{path}: promises {folds} folds of 2 x {each} pairs, has {len(lines) - 1} pairs"
        )
    rows: list[tuple[str, str, bool, int]] = []
    for number, words in enumerate(lines[1:]):
        try:
            if len(words) == 3:
                a, b, same = (words[0], int(words[1])), (words[0], int(words[2])), True
            else:
                first, i, second, j = words
                a, b, same = (first, int(i)), (second, int(j)), False
        except ValueError:
            raise DataError(
                f"{path}:{number + 2}: {' '.join(words)!r} is not a pair line"
            ) from None
        stems = [f"{name}/{name}_{index:04d}" for name, index in (a, b)]
        rows.append((stems[0], stems[1], same, number // (2 * each)))
    known = {str(Path(name).with_suffix("")): i for i, name in enumerate(faces.names)}
    return _resolve(rows, known, faces, path)


def _from_csv(
    name: str, path: Path, contract: FaceContract, resize: bool, progress: Progress | None
) -> EvalSet:
    rows: list[tuple[str, str, bool, int]] = []
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        if not {"a", "b", "same"} <= set(reader.fieldnames or []):
            raise DataError(f"{path}:1: the columns a, b, same are needed, has {reader.fieldnames}")
        for row in reader:
            value = (row["same"] or "").strip().lower()
            if value not in ("0", "1", "true", "false"):
                raise DataError(f"{path}:{reader.line_num}: same is {row['same']!r}, write 0 or 1")
            rows.append((row["a"] or "", row["b"] or "", value in ("1", "true"), 0))
    if not rows:
        raise DataError(f"{path}: lists no pairs")
    wanted = sorted({p for row in rows for p in row[:2]})
    for entry in wanted:
        if Path(entry).suffix.lower() not in SUFFIXES or not (path.parent / entry).is_file():
            raise DataError(f"{path}: {entry!r} is not an image file in {path.parent}")
    faces = load_list(path.parent, wanted, contract, resize=resize, progress=progress)
    known = {name: i for i, name in enumerate(faces.names)}
    pairs = _resolve(rows, known, faces, path)
    # ten folds in the list's order, genuine and impostor pairs spread evenly over them
    for same in (True, False):
        where = np.flatnonzero(pairs.same == same)
        pairs.folds[where] = np.arange(len(where)) * 10 // max(len(where), 1)
    return EvalSet(name, faces, pairs, False)


def _resolve(
    rows: list[tuple[str, str, bool, int]], known: dict[str, int], faces: FaceSet, path: Path
) -> Pairs:
    """Names to indices; unreadable images drop their pairs, missing ones are an error."""
    unreadable = {str(Path(name).with_suffix("")) for name, _ in faces.skipped}
    unreadable |= {name for name, _ in faces.skipped}
    kept: list[tuple[int, int, bool, int]] = []
    dropped: list[str] = []
    for a, b, same, fold in rows:
        if a in known and b in known:
            kept.append((known[a], known[b], same, fold))
            continue
        missing = a if a not in known else b
        if missing not in unreadable:
            raise DataError(f"{path}: the pair {a} - {b} names {missing!r}, which is not there")
        dropped.append(f"{a} - {b}")
    if not kept:
        raise DataError(f"{path}: no pair is left")
    columns = list(zip(*kept, strict=True))
    return Pairs(
        np.asarray(columns[0], np.int64),
        np.asarray(columns[1], np.int64),
        np.asarray(columns[2], bool),
        np.asarray(columns[3], np.int64),
        dropped,
    )
