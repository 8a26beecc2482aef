"""IJB-B and IJB-C in InsightFace's layout: loose crops, landmarks, templates, pairs, galleries."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from efquantface.contract import FaceContract
from efquantface.data.images import UnreadableImage, read_image
from efquantface.data.template import Template, template, warp
from efquantface.data.texts import text_of
from efquantface.errors import CropError, DataError, EvaluationError
from efquantface.evaluation.items import Embedded, EvalItem, Options
from efquantface.evaluation.templates import TemplatePool
from efquantface.files import below
from efquantface.interfaces import Embeds, Progress
from efquantface.reading import is_number

_CHUNK = 512  # crops in memory at a time
_EXACT = 2**53  # up to here float64 holds whole numbers exactly
_LANDMARKS = 11  # five points and the detector's score


@dataclass
class TemplateSet(EvalItem):
    """Crops that belong to media and templates, pairs of templates, and galleries.

    Attributes:
        name: for tables.
        folder: of the loose crops.
        target: the template (alignment) that they are warped to.
        names: N file names.
        landmarks: float32 (N,5,2) in pixels of the loose crops.
        confidence: float32 (N,) of the detector.
        templates, media: int64 (N,) numbers of each crop's template and medium.
        a, b, same: (P,) template numbers of the 1:1 pairs, and whether they are one person; may be
        empty. galleries: 1:N galleries by name: template numbers and subjects. probes: template numbers
        and subjects of the 1:N probes.
    """

    name: str
    folder: Path
    target: Template
    names: list[str]
    landmarks: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    templates: npt.NDArray[np.int64]
    media: npt.NDArray[np.int64]
    a: npt.NDArray[np.int64]
    b: npt.NDArray[np.int64]
    same: npt.NDArray[np.bool_]
    galleries: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = field(
        default_factory=dict
    )
    probes: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """Template numbers in the order of the pooled vectors."""
        return np.unique(self.templates)

    def embed(
        self, embedder: Embeds, options: Options, progress: Progress | None = None
    ) -> Embedded:
        """Pooled templates (T,D); crops are warped, embedded and pooled 512 at a time.

        Raises:
            EvaluationError: a crop is missing or not a whole image.
        """
        flags = options.templates
        pool = TemplatePool(self.templates, self.media, self.confidence, flags)
        with ThreadPoolExecutor() as threads:
            for start in range(0, len(self.names), _CHUNK):
                items = range(start, min(start + _CHUNK, len(self.names)))
                crops = np.stack(list(threads.map(self.crop, items)))
                pool.add(embedder.embed(crops, flip=flags.flip))
                if progress:
                    progress(items[-1] + 1, len(self.names))
        return Embedded(pool.templates())

    def crop(self, index: int) -> npt.NDArray[np.uint8]:
        """An aligned crop, uint8 RGB (H,W,3).

        Raises:
            EvaluationError: the file is missing or damaged. A template must not lose it silently.
        """
        path = below(self.folder, self.names[index], str(self.folder))
        try:
            image = read_image(path)
        except (UnreadableImage, OSError) as error:
            raise EvaluationError(f"{path}: cannot be read ({error})") from None
        return warp(image, self.landmarks[index].astype(np.float64), self.target)


def is_ijb(root: Path) -> bool:
    """Whether a folder has the layout of IJB."""
    return any((root / "meta").glob("*_face_tid_mid.txt"))


def load_ijb(name: str, root: Path, contract: FaceContract) -> TemplateSet:
    """Read ``meta`` of an IJB folder; crops stay in ``loose_crop`` until they are embedded.

    It needs ``*_name_5pts_score.txt`` (name, ten coordinates, score) and ``*_face_tid_mid.txt`` (name,
    template, medium). 1:1 needs ``*_template_pair_label.txt`` (template, template, 0 or 1). 1:N needs
    ``*_1N_gallery_*.csv`` and ``*_1N_probe_mixed.csv`` (template, subject, ...).

    Raises:
        DataError: a file is missing or malformed; the text names the line.
        CropError: crops cannot be aligned to the contract's template.
    """
    try:
        target = template(contract.template)
    except DataError as error:
        raise CropError(f"{root}: loose crops cannot be aligned: {error}") from None
    if (contract.height, contract.width) != (target.size, target.size):
        raise CropError(
            f"{root}: the network takes {contract.width}x{contract.height}, the template "
            f"{contract.template} has {target.size}"
        )
    meta, folder = root / "meta", root / "loose_crop"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; the layout has the loose crops there")
    points_file, crops_file = _one(meta, "*_name_5pts_score.txt"), _one(meta, "*_face_tid_mid.txt")
    names, points = _table(points_file, _LANDMARKS)
    crop_names, owners = _table(crops_file, 2)
    odd = np.flatnonzero(((owners != np.rint(owners)) | (abs(owners) > _EXACT)).any(axis=1))
    if len(odd):
        raise DataError(f"{crops_file}:{int(odd[0]) + 1}: template and medium are whole numbers")
    if names != crop_names:
        wrong = next(
            (i for i, (x, y) in enumerate(zip(names, crop_names, strict=False)) if x != y),
            min(len(names), len(crop_names)),
        )
        raise DataError(
            f"{crops_file}:{wrong + 1}: names other crops than {points_file.name} there "
            f"({len(crop_names)} and {len(names)} crops)"
        )
    result = TemplateSet(
        name,
        folder,
        target,
        names,
        points[:, :10].reshape(-1, 5, 2).astype(np.float32),
        points[:, 10].astype(np.float32),
        owners[:, 0].astype(np.int64),
        owners[:, 1].astype(np.int64),
        *_pairs(meta),
    )
    _identification(meta, result)
    if not len(result.a) and not result.galleries:
        raise DataError(f"{meta}: has neither *_template_pair_label.txt nor *_1N_gallery_*.csv")
    _check_templates(meta, result)
    return result


def _one(meta: Path, pattern: str) -> Path:
    found = sorted(meta.glob(pattern))
    if len(found) != 1:
        raise DataError(f"{meta}: has {len(found)} files {pattern}, one is needed")
    return found[0]


def _table(path: Path, columns: int) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Names, and a table (N,columns) of their numbers, one per line."""
    names, values = [], []
    for number, line in enumerate(text_of(path).splitlines()):
        words = line.split()
        if not words:
            continue
        try:
            if len(words) != columns + 1:
                raise ValueError(f"{len(words)} columns, {columns + 1} are needed")
            values.append([float(w) for w in words[1:]])
        except ValueError as error:
            raise DataError(f"{path}:{number + 1}: {error}") from None
        names.append(words[0])
    if not names:
        raise DataError(f"{path}: is empty")
    table = np.asarray(values)
    with np.errstate(over="ignore"):
        bad = np.flatnonzero(~np.isfinite(table.astype(np.float32)).all(axis=1))
    if len(bad):
        raise DataError(f"{path}:{int(bad[0]) + 1}: holds a number that is not finite in 32 bits")
    return names, table


def _pairs(
    meta: Path,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    found = sorted(meta.glob("*_template_pair_label.txt"))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool)
    table = read_integers(found[0], 3)
    wrong = np.flatnonzero((table[:, 2] != 0) & (table[:, 2] != 1))
    if len(wrong):
        raise DataError(f"{found[0]}:{int(wrong[0]) + 1}: the label is {table[wrong[0], 2]}")
    return table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2] == 1


def read_integers(path: Path, columns: int) -> npt.NDArray[np.int32]:
    """A table int32 (N,columns) of whole numbers; 15.7 million lines take half a minute.

    Raises:
        DataError: the file has another form; the text names the line.
    """
    try:
        table = np.loadtxt(path, dtype=np.int32, ndmin=2)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}: {error}") from None
    if table.shape[1:] != (columns,) or not len(table):
        raise DataError(f"{path}: has {table.shape[1]} columns, {columns} are needed")
    return np.asarray(table)


def _identification(meta: Path, result: TemplateSet) -> None:
    probes = sorted(meta.glob("*_1N_probe_mixed.csv"))
    galleries = sorted(meta.glob("*_1N_gallery_*.csv"))
    if not probes or not galleries:
        return
    result.probes = _subjects(probes[0])
    for path in galleries:
        result.galleries[path.stem.rpartition("_")[2]] = _subjects(path)


def _subjects(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Templates and subjects of a 1:N list, each template once; further columns are ignored."""
    found: dict[int, int] = {}
    for number, line in enumerate(text_of(path).splitlines()[1:]):
        words = [word.strip() for word in line.split(",")]
        if not line.strip():
            continue
        if len(words) < 2 or not all(is_number(w) for w in words[:2]):
            raise DataError(f"{path}:{number + 2}: {line[:60]!r} is not 'template,subject,...'")
        key, subject = int(words[0]), int(words[1])
        if found.setdefault(key, subject) != subject:
            raise DataError(f"{path}:{number + 2}: template {key} has two subjects")
    if not found:
        raise DataError(f"{path}: lists no templates")
    return np.asarray(list(found), np.int64), np.asarray(list(found.values()), np.int64)


def _check_templates(meta: Path, result: TemplateSet) -> None:
    """Check that every template in a protocol has media.

    Raises:
        DataError: one has none.
    """
    named = [result.a, result.b, *(g[0] for g in result.galleries.values())]
    if result.probes is not None:
        named.append(result.probes[0])
    missing = np.setdiff1d(np.concatenate(named), result.templates)
    if len(missing):
        raise DataError(
            f"{meta}: {len(missing)} templates that the protocols name have no media in "
            f"*_face_tid_mid.txt, the first is {int(missing[0])}"
        )
