"""A set of aligned face crops in memory, with identities where folders give them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from efquantface.contract import FaceContract
from efquantface.data.images import SUFFIXES, UnreadableImage, read_image
from efquantface.errors import CropError, DataError

Progress = Callable[[int, int], None]


@dataclass
class FaceSet:
    """Crops and what is known about them.

    Attributes:
        images: uint8 RGB (N,H,W,3).
        names: path relative to the source's root, one an image.
        identities: index of the identity, -1 for all where the source has none.
        identity_names: names of the identities.
        skipped: files that could not be used, with the reason.
        source: where they came from.
    """

    images: npt.NDArray[np.uint8]
    names: list[str]
    identities: npt.NDArray[np.int64]
    identity_names: list[str]
    source: str
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_identities(self) -> bool:
        """True where the folders name identities."""
        return len(self.identity_names) > 0

    def subset(self, index: npt.NDArray[np.int64]) -> FaceSet:
        """The images at ``index``, identities keeping their numbers."""
        return FaceSet(
            self.images[index],
            [self.names[i] for i in index],
            self.identities[index],
            self.identity_names,
            self.source,
            self.skipped,
        )

    def describe(self) -> str:
        """One line for logs and reports."""
        people = (
            f"{len(np.unique(self.identities)):,} identities"
            if self.has_identities
            else "no identities"
        )
        lost = f", {len(self.skipped):,} files skipped" if self.skipped else ""
        return f"{len(self):,} images, {people} ({self.source}{lost})"


def find_images(root: Path) -> list[Path]:
    """All image files below ``root``, sorted, links to folders followed but never in circles.

    Raises:
        DataError: the folder is missing or holds no image.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            status = folder.stat()
            children = sorted(folder.iterdir())
        except OSError:
            continue  # a link that leads nowhere or in a circle, or a folder that may not be read
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for child in children:
            try:
                if child.is_dir():
                    pending.append(child)
                elif child.suffix.lower() in SUFFIXES and child.is_file():
                    found.append(child)
            except OSError:
                continue
    if not found:
        kinds = ", ".join(sorted(SUFFIXES))
        raise DataError(f"{root}: holds no images ({kinds})")
    return sorted(found)


def load_faces(
    root: Path,
    contract: FaceContract,
    *,
    resize: bool = False,
    limit: int | None = None,
    progress: Progress | None = None,
) -> FaceSet:
    """Load a folder of crops: one subfolder an identity, or images without identities.

    A file that is not a whole image is skipped and listed, never fatal.

    Args:
        root: the folder.
        contract: what the crops have to be.
        resize: scale crops of another size instead of refusing them.
        limit: at most this many images, taken identity by identity in order.
        progress: called with (done, total).

    Raises:
        DataError: no such folder, or no readable image in it.
        CropError: crops of another size, where ``resize`` is not asked for.
    """
    paths = find_images(root)
    relative = [str(p.relative_to(root)) for p in paths]
    return load_list(root, relative[:limit], contract, resize=resize, progress=progress)


def load_list(
    root: Path,
    names: list[str],
    contract: FaceContract,
    *,
    resize: bool = False,
    progress: Progress | None = None,
) -> FaceSet:
    """Like :func:`load_faces`, for the listed files (paths relative to ``root``)."""
    size = (contract.height, contract.width)

    def load(name: str) -> npt.NDArray[np.uint8] | tuple[int, ...] | str:
        try:
            image = read_image(root / name)
        except UnreadableImage as error:
            return str(error)
        if image.shape[:2] == size:
            return image
        if not resize or min(image.shape[:2]) < 2:
            return image.shape
        return _resized(image, size)

    images, kept, skipped = [], [], []
    wrong: Counter[tuple[int, ...]] = Counter()
    with ThreadPoolExecutor() as pool:
        for index, result in enumerate(pool.map(load, names)):
            if isinstance(result, np.ndarray):
                images.append(result)
                kept.append(names[index])
            elif isinstance(result, tuple):
                wrong[result[:2]] += 1
                skipped.append((names[index], f"is {result[1]}x{result[0]}"))
            else:
                skipped.append((names[index], result))
            if progress and (index % 64 == 63 or index + 1 == len(names)):
                progress(index + 1, len(names))
    _check_sizes(root, contract, wrong, len(names))
    if not images:
        raise DataError(
            f"{root}: none of {len(names)} files is a whole image, the first: {skipped[0]}"
        )
    identities, identity_names = _identities(kept)
    return FaceSet(np.stack(images), kept, identities, identity_names, str(root), skipped)


def _identities(names: list[str]) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Identity numbers from the first folder of each name; none for a flat folder."""
    labels = [parts[0] if len(parts := Path(name).parts) > 1 else "" for name in names]
    if set(labels) == {""}:
        return np.full(len(names), -1, np.int64), []
    unique = sorted(set(labels))
    numbers = {label: n for n, label in enumerate(unique)}
    return np.asarray([numbers[label] for label in labels], np.int64), unique


def _check_sizes(
    root: Path, contract: FaceContract, wrong: Counter[tuple[int, ...]], total: int
) -> None:
    """A stray file of another size is skipped; more than one in fifty means: not crops."""
    count = sum(wrong.values())
    if count * 50 <= total:
        return
    (height, width), _ = wrong.most_common(1)[0]
    raise CropError(
        f"{root}: {count:,} of {total:,} images ({count / total:.0%}) are not "
        f"{contract.width}x{contract.height} crops (most often {width}x{height}). Align the photos "
        f"with: efq align {root} -o FACES --template {contract.template}   "
        "or, if they are aligned crops of another size, add --resize"
    )


def _resized(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    height, width = size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def split(
    faces: FaceSet, fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(training, held-out) indices: whole identities are held out, or images if unlabelled.

    At least two identities (or images) stay on each side.

    Raises:
        DataError: fewer than four identities or images.
    """
    rng = np.random.default_rng([seed, 10])
    if faces.has_identities and len(np.unique(faces.identities)) >= 4:
        groups = faces.identities
    else:
        groups = np.arange(len(faces), dtype=np.int64)
    unique = np.unique(groups)
    if len(unique) < 4:
        raise DataError(
            f"{faces.source}: {len(unique)} images are too few to hold some out; give at least 4"
        )
    count = min(max(round(len(unique) * fraction), 2), len(unique) - 2)
    held = np.isin(groups, rng.permutation(unique)[:count])
    return np.flatnonzero(~held), np.flatnonzero(held)


def cap(faces: FaceSet, limit: int, seed: int) -> FaceSet:
    """At most ``limit`` images: whole identities at random, or images if unlabelled."""
    rng = np.random.default_rng([seed, 12])
    groups = faces.identities if faces.has_identities else np.arange(len(faces), dtype=np.int64)
    order = rng.permutation(np.unique(groups))
    sizes = np.bincount(groups, minlength=int(groups.max()) + 1)[order]
    chosen = order[np.cumsum(sizes) <= limit]
    if len(chosen) == 0:  # one identity larger than the limit
        return faces.subset(np.sort(rng.permutation(len(faces))[:limit]))
    return faces.subset(np.flatnonzero(np.isin(groups, chosen)))
