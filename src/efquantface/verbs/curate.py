"""``efq data subset`` and ``efq data check``: choose and check images by a teacher's embeddings."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.data.align import OFF, landmark_error
from efquantface.data.checking import check_people
from efquantface.data.choosing import choose, presample
from efquantface.data.detect import detector_available
from efquantface.data.faces import FaceSet, load, open_source
from efquantface.data.images import write_image
from efquantface.data.listing import write_list
from efquantface.data.template import TEMPLATES, template
from efquantface.embedding.embedder import Embedder
from efquantface.errors import DataError, RunError
from efquantface.evaluation.shared import numbered_people, people_in_both
from efquantface.files import write_text
from efquantface.rows import unit

_SHEET = 60  # faces on a contact sheet, at most


def write_subset(
    faces: Path,
    output: Path,
    size: int,
    by: str,
    *,
    teacher: str | None = None,
    preprocess: str | None = None,
    seed: int = 0,
    follow_links: bool = False,
    force: bool = False,
) -> int:
    """Choose ``size`` images and write them as a list file that ``efq compress`` takes.

    Args:
        faces: as :func:`~efquantface.data.faces.open_source` takes them.
        output: the list file.
        size: how many images to choose.
        by: one of :data:`~efquantface.data.ways.WAYS`.
        teacher, preprocess: the model whose embeddings are covered, for ``coverage``.
        seed: of the choice.
        follow_links: see :func:`~efquantface.data.faces.open_source`.
        force: replace an existing list.

    Returns:
        How many images the source has.

    Raises:
        DataError: the source or the choice cannot be used.
        RunError: the list exists.
    """
    _free(output, force)
    source = open_source(faces, follow_links)
    index, rows = np.arange(len(source)), None
    if by == "coverage":
        if teacher is None:
            raise DataError("--by coverage needs --teacher MODEL, whose embeddings are covered")
        index = presample(len(source), size, seed)
        model = Embedder.open(teacher, preprocess=preprocess)
        loaded = load(source, model.contract, index)
        names = {source.name(int(i)): int(i) for i in index}
        index = np.asarray([names[n] for n in loaded.names], np.int64)
        rows = unit(_embedded(model, loaded, Console()), "teacher embeddings")
    chosen = index[choose(source.identities[index], size, by, seed, rows)]
    write_list(
        output, source, chosen, f"{size} of {len(source)} images of {faces} by {by}, seed {seed}"
    )
    return len(source)


@dataclass
class CheckResult:
    """What :func:`check_faces` found.

    Attributes:
        listed: (name, reason) of each image to leave out.
        lines: sentences for the user.
        counts: the same as numbers, by name.
    """

    listed: list[tuple[str, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        listed = [{"name": name, "reason": why} for name, why in self.listed]
        return {**self.counts, "listed": listed}


def check_faces(
    faces: Path,
    output: Path,
    *,
    teacher: str,
    against: Path | None = None,
    preprocess: str | None = None,
    sheet: Path | None = None,
    resize: bool = False,
    follow_links: bool = False,
    force: bool = False,
) -> CheckResult:
    """Check a set of faces, and write a list of the images to leave out of training.

    The list holds near-duplicates, images unlike the others of their identity, crops off the template,
    and all images of people who are also in ``against``. Identities that are one person, and identities
    of two people, are counted and named.

    Args:
        faces: as :func:`~efquantface.data.faces.open_source` takes them.
        output: the list, for ``efq compress --exclude``.
        teacher, preprocess: the model whose embeddings decide who is who.
        against: faces of an evaluation set.
        sheet: a .jpg of the first 60 images listed.
        resize: scale crops of another size.
        follow_links: see :func:`~efquantface.data.faces.open_source`.
        force: replace existing files.

    Raises:
        DataError, ModelFileError: something cannot be read.
        RunError: an output exists.
    """
    _free(output, force)
    if sheet is not None:
        _free(sheet, force)
    console = Console()
    model = Embedder.open(teacher, preprocess=preprocess)
    contract = model.contract
    source = open_source(faces, follow_links)
    with console.bar("loading faces") as advance:
        loaded = load(source, contract, resize=resize, progress=advance)
    rows = unit(_embedded(model, loaded, console), "teacher embeddings")
    result = CheckResult()
    reasons: dict[int, str] = {}
    if loaded.has_identities:
        _judge_people(loaded, rows, reasons, result)
    if against is not None:
        other = load(open_source(against, follow_links), contract, resize=resize)
        theirs = unit(_embedded(model, other, console), "teacher embeddings")
        _judge_shared(loaded, rows, other, theirs, reasons, result)
    _judge_alignment(loaded, contract, reasons, result, console)
    result.listed = [(loaded.names[i], why) for i, why in sorted(reasons.items())]
    result.counts["images"] = len(loaded)
    result.lines.append(f"{len(reasons):,} of {len(loaded):,} images are listed in {output}")
    _write(output, source.root, result.listed)
    if sheet is not None and reasons:
        _contact_sheet(sheet, loaded, sorted(reasons))
    return result


def _judge_people(
    faces: FaceSet, rows: npt.NDArray[np.float32], reasons: dict[int, str], result: CheckResult
) -> None:
    found = check_people(rows, faces.identities)
    names = faces.identity_names
    for image, kept in found.duplicates:
        reasons.setdefault(image, f"near-duplicate of {faces.names[kept]}")
    for image in found.outliers:
        reasons.setdefault(image, "unlike the others of its identity")
    result.counts |= {
        "threshold": found.threshold,
        "identity_pairs_of_one_person": len(found.split),
        "identities_of_two_people": len(found.merged),
        "images_unlike_their_identity": len(found.outliers),
        "near_duplicates": len(found.duplicates),
    }
    split = ", ".join(f"{names[a]} = {names[b]}" for a, b in found.split[:5])
    merged = ", ".join(names[i] for i in found.merged[:5])
    result.lines += [
        f"images belong to one identity from a cosine of {found.threshold:.3f} on",
        f"{len(found.split):,} pairs of identities are one person"
        + (f": {split}" if split else ""),
        f"{len(found.merged):,} identities hold two people" + (f": {merged}" if merged else ""),
        f"{len(found.outliers):,} images are unlike the others of their identity",
        f"{len(found.duplicates):,} near-duplicates",
    ]


def _judge_shared(
    faces: FaceSet,
    rows: npt.NDArray[np.float32],
    other: FaceSet,
    theirs: npt.NDArray[np.float32],
    reasons: dict[int, str],
    result: CheckResult,
) -> None:
    shared = people_in_both(faces, rows, other, theirs)
    by_number = dict(shared)
    numbers = numbered_people(faces)
    for image, number in enumerate(numbers):
        if int(number) in by_number:
            reasons[image] = f"in the evaluation set: {_person(other, by_number[int(number)])}"
    result.counts["people_in_both"] = len(by_number)
    text = ", ".join(f"{_person(faces, a)} = {_person(other, b)}" for a, b in shared[:5])
    result.lines.append(
        f"{len(by_number):,} people are in {other.source}, too" + (f": {text}" if text else "")
    )


def _person(faces: FaceSet, number: int) -> str:
    return faces.identity_names[number] if faces.has_identities else faces.names[number]


def _judge_alignment(
    faces: FaceSet,
    contract: FaceContract,
    reasons: dict[int, str],
    result: CheckResult,
    console: Console,
) -> None:
    fits = contract.template in TEMPLATES and template(contract.template).size == contract.width
    if not fits or not detector_available():
        result.lines.append("alignment not checked: no template or no detector")
        return
    wanted, off, unseen = template(contract.template), 0, 0
    with console.bar("looking for landmarks") as advance, ThreadPoolExecutor() as pool:
        errors = pool.map(lambda image: landmark_error(image, wanted), faces.images)
        for i, error in enumerate(errors):
            unseen += error is None
            if error is not None and error > OFF:
                off += 1
                reasons.setdefault(i, f"off the template by {error:.2f} eye distances")
            advance(i + 1, len(faces))
    result.counts |= {"crops_off_the_template": off, "crops_without_a_face": unseen}
    result.lines.append(f"{off:,} crops are off the template, no face is found in {unseen:,}")


def _embedded(embedder: Embedder, faces: FaceSet, console: Console) -> npt.NDArray[np.float32]:
    with console.bar("teacher's embeddings") as advance:
        return embedder.embed(faces.images, progress=advance)


def _free(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise RunError(f"{path}: exists; choose another name or add --force")


def _write(output: Path, root: Path, listed: list[tuple[str, str]]) -> None:
    lines = ["# images to leave out of training; for: efq compress --exclude"]
    lines += [f"{os.path.relpath(root / name, output.parent)}\t{why}" for name, why in listed]
    write_text(output, "\n".join(lines) + "\n")


def _contact_sheet(path: Path, faces: FaceSet, index: list[int]) -> None:
    """Draw the listed faces, ten per row."""
    shown = [cv2.resize(faces.images[i], (112, 112)) for i in index[:_SHEET]]
    shown += [np.zeros((112, 112, 3), np.uint8)] * (-len(shown) % 10)
    rows = [np.concatenate(shown[i : i + 10], axis=1) for i in range(0, len(shown), 10)]
    write_image(path, np.concatenate(rows))
