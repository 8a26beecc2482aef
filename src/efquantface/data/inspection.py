"""Inspects and unpacks a source of faces."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from efquantface.data.containers import CONTAINERS
from efquantface.data.images import UnreadableImage
from efquantface.data.source import FaceSource
from efquantface.data.verification_bin import FOLDS, BinSource, contiguous_folds
from efquantface.errors import DataError
from efquantface.files import kept_below, write_bytes, write_text
from efquantface.interfaces import Progress
from efquantface.reading import is_number

_SAMPLE = 200


@dataclass(frozen=True)
class SourceFacts:
    """What a source of faces holds.

    Attributes:
        where: the source as the user named it.
        images: how many there are.
        pairs, genuine: how many pairs a verification file has, and genuine ones; None for others.
        per_identity: int64 (I,) number of images of each identity; empty where none are known.
        sizes: how many images of the sample have each ``WIDTHxHEIGHT``.
        looked_at: images in the sample.
        unreadable: (name, reason) of images of the sample that cannot be read.
        example: an item's name.
    """

    where: str
    images: int
    pairs: int | None
    genuine: int | None
    per_identity: npt.NDArray[np.int64]
    sizes: dict[str, int]
    looked_at: int
    unreadable: list[tuple[str, str]]
    example: str

    def lines(self) -> list[str]:
        """Lines of text for a user."""
        lines = [f"{self.where}: {self.images:,} images"]
        if self.pairs is not None:
            lines.append(f"  {self.pairs:,} pairs, {self.genuine:,} of them genuine")
        if len(self.per_identity):
            low, middle, high = self._spread()
            lines.append(
                f"  {len(self.per_identity):,} identities of {low} to {high} images (median "
                f"{middle}), {int((self.per_identity == 1).sum()):,} with a single one"
            )
        else:
            lines.append("  no identities")
        sizes = ", ".join(f"{size} ({count})" for size, count in list(self.sizes.items())[:5])
        lines.append(f"  sizes of {self.looked_at} images looked at: {sizes or 'none readable'}")
        if self.unreadable:
            lines.append(f"  {len(self.unreadable)} of them cannot be read:")
            lines += [f"  {name}: {why}" for name, why in self.unreadable[:5]]
        return [*lines, f"  items are named like {self.example}"]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        low, middle, high = self._spread()
        return {
            "source": self.where,
            "images": self.images,
            "pairs": self.pairs,
            "genuine_pairs": self.genuine,
            "identities": len(self.per_identity),
            "images_per_identity": {"least": low, "median": middle, "most": high},
            "identities_of_one_image": int((self.per_identity == 1).sum()),
            "looked_at": self.looked_at,
            "sizes": self.sizes,
            "unreadable": [{"name": name, "reason": why} for name, why in self.unreadable],
        }

    def _spread(self) -> tuple[int, ...]:
        if not len(self.per_identity):
            return 0, 0, 0
        return tuple(int(v) for v in np.percentile(self.per_identity, [0, 50, 100]))


def inspect_source(source: FaceSource, sample: int = _SAMPLE) -> SourceFacts:
    """Count a source's images and identities, and read ``sample`` of the images."""
    index = np.random.default_rng(70).permutation(len(source))[:sample]
    sizes: Counter[str] = Counter()
    unreadable = []
    for i in index:
        try:
            height, width = source.read(int(i)).shape[:2]
            sizes[f"{width}x{height}"] += 1
        except (UnreadableImage, DataError, OSError) as error:
            unreadable.append((source.name(int(i)), str(error)))
    pairs = source.same if isinstance(source, BinSource) else None
    per_identity = (
        np.bincount(source.identities, minlength=len(source.identity_names))
        if (source.identity_names)
        else np.zeros(0, np.int64)
    )
    return SourceFacts(
        source.where,
        len(source),
        None if pairs is None else len(pairs),
        None if pairs is None else int(pairs.sum()),
        per_identity.astype(np.int64),
        dict(sizes.most_common()),
        len(index),
        unreadable,
        source.name(0),
    )


def extract_source(
    source: FaceSource,
    output: Path,
    limit: int | None = None,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Write images as they are stored into ``output/IDENTITY/NUMBER.jpg``.

    An identity whose name would lead out of ``output`` gets another name. An image that is there is
    kept. So after a stop the same call goes on where it was.

    Args:
        source: the images.
        output: folder.
        limit: at most this many images, the first ones; None takes all.
        progress: called with (done, total).

    Returns:
        Images written, and images that were there.

    Raises:
        DataError: an item cannot be read.
    """
    count = len(source) if limit is None else min(limit, len(source))
    written = existing = 0
    names = []
    folders = _folders(source.identity_names)
    for i in range(count):
        number = int(source.identities[i])
        folder = output / folders[number] if number >= 0 else output
        stem = f"{_number(source.name(i), i):08d}"
        there = [p for p in (folder / f"{stem}{s}" for s in _SUFFIXES) if p.is_file()]
        if there:
            existing += 1
            names.append(there[0])
        else:
            data = source.encoded(i)
            target = folder / f"{stem}{source.suffix(i, data)}"
            write_bytes(target, data)
            written += 1
            names.append(target)
        if progress:
            progress(i + 1, count)
    if isinstance(source, BinSource) and count == len(source):
        _write_pairs(source, names, output)
    return written, existing


def _number(name: str, index: int) -> int:
    """A record's number; for items with a name (an image, a tar's sample) their place in the source."""
    file, _, key = name.rpartition("#")
    counted = is_number(key) and Path(file).suffix.lower() in CONTAINERS
    return int(key) if counted and Path(file).suffix.lower() != ".tar" else index


def _folders(identities: list[str]) -> list[str]:
    """A folder of its own for each identity."""
    taken = {name for name in identities if kept_below(name) == name}
    folders = []
    for number, name in enumerate(identities):
        folder = kept_below(name)
        if folder != name:
            folder = folder if folder not in taken else f"{folder}-{number}"
            taken.add(folder)
        folders.append(folder)
    return folders


_SUFFIXES = (".jpg", ".png", ".webp", ".bmp")


def _write_pairs(source: BinSource, names: list[Path], output: Path) -> None:
    """Write the pairs, in ten folds of equal length, in the file's order."""
    folds = contiguous_folds(len(source.same), FOLDS)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["a", "b", "same", "fold"])
    for a, b, same, fold in zip(source.a, source.b, source.same, folds, strict=True):
        writer.writerow([names[a].name, names[b].name, int(same), int(fold)])
    write_text(output / "pairs.csv", text.getvalue())
