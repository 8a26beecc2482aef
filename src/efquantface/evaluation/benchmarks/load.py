"""``--eval``: loads the benchmark at a path as evaluation items."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet, load, open_source
from efquantface.data.listing import ListSource, is_missing
from efquantface.data.source import FaceSource, FolderSource, find_images, numbered
from efquantface.data.verification_bin import FOLDS, BinSource, contiguous_folds
from efquantface.errors import DataError
from efquantface.evaluation.benchmarks import pair_lists
from efquantface.evaluation.benchmarks.gallery import load_gallery
from efquantface.evaluation.benchmarks.ijb import is_ijb, load_ijb
from efquantface.evaluation.benchmarks.pairing import (
    Row,
    locate,
    person_of,
    prefixes,
    resolve,
)
from efquantface.evaluation.items import EvalItem
from efquantface.evaluation.sets import EvalSet, Pairs
from efquantface.interfaces import Progress

_TWO_LINES = ("pairs_CALFW.txt", "pairs_CPLFW.txt")
_AGEDB = "*protocol_30*.mat"


@dataclass(frozen=True)
class _Place:
    """A path, and how its faces are read."""

    path: Path
    contract: FaceContract
    resize: bool
    progress: Progress | None

    def load(self, source: FaceSource) -> FaceSet:
        return load(source, self.contract, resize=self.resize, progress=self.progress)

    def faces(self) -> FaceSet:
        return self.load(open_source(self.path))


def load_eval(
    text: str, contract: FaceContract, *, resize: bool = False, progress: Progress | None = None
) -> list[EvalItem]:
    """Load ``NAME=PATH`` or ``PATH``.

    The files at a path tell what it is: a ``.bin`` or a folder of them; a CSV list of pairs; LFW's
    folder with pairs.txt; CALFW's and CPLFW's with their pair lists; CFP's with ``Protocol``
    (frontal-profile, or frontal-frontal for a name that ends in ``ff``); AgeDB's with its .mat file;
    RFW's with ``txts`` and ``data`` (four sets); IJB's with ``meta`` and ``loose_crop``; a folder with
    ``gallery`` and ``probe``; or a folder of identities, of which all pairs are scored. The name
    ``folder`` always means the last.

    Args:
        text: ``NAME=PATH`` or ``PATH``.
        contract: gives the size of the crops, and their template.
        resize: scale crops of another size.
        progress: called with (done, total).

    Raises:
        DataError: the path or its contents cannot be used.
        CropError: the faces are not crops of the contract's size.
    """
    name, separator, place = text.partition("=")
    path = Path(place if separator else text)
    if separator and (not name or not place):
        raise DataError(f"--eval {text!r}: write NAME=PATH, for example lfw=DIR or pairs=FILE.csv")
    at = _Place(path, contract, resize, progress)
    name = name if separator else path.stem
    if path.is_file():
        return [_bin(name, at) if path.suffix.lower() == ".bin" else _csv(name, at)]
    if not path.is_dir():
        raise DataError(
            f"{path}: no such folder or file; --eval takes PATH or NAME=PATH, for example lfw=DIR"
        )
    if name == "folder":
        return [_people(name, at)]
    if any(path.glob("*.bin")):
        return [_bin(file.stem, replace(at, path=file)) for file in sorted(path.glob("*.bin"))]
    return _layout(name, at)


def _layout(name: str, at: _Place) -> list[EvalItem]:
    path = at.path
    if is_ijb(path):
        return [load_ijb(name, path, at.contract)]
    if (path / "pairs.txt").is_file():
        return [_lfw(name, at)]
    for listed in (path / file for file in _TWO_LINES):
        if listed.is_file():
            return [_listed(name, at, pair_lists.read_two_lines(listed), listed)]
    if (path / "Protocol" / "Split").is_dir():
        kind = "FF" if name.lower().endswith("ff") else "FP"
        return [_listed(name, at, pair_lists.read_cfp(path / "Protocol", kind), path / "Protocol")]
    for listed in sorted(path.glob(_AGEDB)):
        return [_listed(name, at, pair_lists.read_agedb(listed), listed)]
    root = path / "test" if (path / "test" / "txts").is_dir() else path
    if (root / "txts").is_dir() and (root / "data").is_dir():
        return _rfw(name, root, at)
    for listed in sorted(path.glob("*pair*.txt")):
        return [_listed(name, at, pair_lists.read_three_columns(listed), listed)]
    if (path / "gallery").is_dir() and (path / "probe").is_dir():
        return [load_gallery(name, path, at.contract, resize=at.resize, progress=at.progress)]
    if name == "lfw":
        raise DataError(f"{path / 'pairs.txt'}: no such file; LFW's pair list belongs there")
    return [_people(name, at)]


def _people(name: str, at: _Place) -> EvalSet:
    faces = at.faces()
    if faces.people == 1:
        raise DataError(
            f"{at.path}: all {len(faces)} images are of {faces.identity_names[faces.identities[0]]}; "
            "all pairs need two people or more, each a subfolder"
        )
    return EvalSet(name, faces, None, True)


def _lfw(name: str, at: _Place) -> EvalSet:
    """LFW: one folder per person, here or one folder down, or all images in one folder."""
    listed = at.path / "pairs.txt"
    rows = pair_lists.read_lfw(listed)
    paths = [p.relative_to(at.path).as_posix() for p in find_images(at.path)]
    found = locate(paths, rows, str(at.path), str(listed))
    above = prefixes(found.paths, found.parts)
    if found.parts > 1 and len(above) == 1:
        source = FolderSource(at.path / above[0])
    else:
        source = FolderSource(at.path, found.paths)
        source.identities, source.identity_names = numbered([person_of(p) for p in found.paths])
    faces = at.load(source)
    pairs = resolve(rows, faces, str(listed), found.parts)
    return EvalSet(name, faces, pairs, faces.has_identities)


def _rfw(name: str, root: Path, at: _Place) -> list[EvalItem]:
    """One set per group."""
    items: list[EvalItem] = []
    for listed in sorted(root.glob("txts/*/*_pairs.txt")):
        group = listed.parent.name
        folder = replace(at, path=root / "data" / group)
        rows = pair_lists.read_lfw(listed)
        item = _listed(f"{name} {group}", folder, rows, listed)
        item.family = name
        items.append(item)
    if not items:
        raise DataError(f"{root / 'txts'}: holds no GROUP/GROUP_pairs.txt")
    return items


def _listed(name: str, at: _Place, rows: list[Row], listed: Path) -> EvalSet:
    """Pairs of images anywhere below the folder, found by path or by file name alone."""
    paths = [p.relative_to(at.path).as_posix() for p in find_images(at.path)]
    found = locate(paths, rows, str(at.path), str(listed))
    faces = at.load(FolderSource(at.path, found.paths))
    return EvalSet(name, faces, resolve(rows, faces, str(listed), found.parts), False)


def _bin(name: str, at: _Place) -> EvalSet:
    """A verification file, in ten folds of equal length, in the file's order."""
    source = BinSource(at.path)
    faces = at.load(source)
    position = {n: i for i, n in enumerate(faces.names)}
    index = [position.get(source.name(i), -1) for i in range(len(source))]
    folds = contiguous_folds(len(source.same), FOLDS)
    kept, dropped = [], []
    for pair, (a, b) in enumerate(zip(source.a, source.b, strict=True)):
        if index[a] < 0 or index[b] < 0:
            dropped.append(f"pair {pair}")
        else:
            kept.append(pair)
    if not kept:
        raise DataError(f"{at.path}: no pair is left")
    moved = np.asarray(index, np.int64)
    a, b = moved[source.a[kept]], moved[source.b[kept]]
    return EvalSet(name, faces, Pairs(a, b, source.same[kept], folds[kept], dropped), False)


def _csv(name: str, at: _Place) -> EvalSet:
    rows = pair_lists.read_csv(at.path)
    wanted = sorted({n for row in rows for n in (row.a, row.b)})
    there = [n for n in wanted if not is_missing(at.path.parent, n)]
    if not there:
        raise DataError(f"{at.path}: none of its images is there, the first: {wanted[0]!r}")
    source = ListSource(at.path.parent, there, None, str(at.path))
    faces = at.load(source)
    return EvalSet(name, faces, resolve(rows, faces, str(at.path)), False)
