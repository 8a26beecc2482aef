"""Looking into a source of faces, and unpacking it."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np

from efquantface.data.images import UnreadableImage
from efquantface.data.source import FaceSource
from efquantface.data.verification_bin import FOLDS, BinSource, contiguous_folds
from efquantface.errors import DataError
from efquantface.files import whole, write_bytes
from efquantface.interfaces import Progress

_SAMPLE = 200


def describe_source(source: FaceSource, sample: int = _SAMPLE) -> list[str]:
    """Lines for a user: counts, how many images an identity has, sizes of a sample."""
    lines = [f"{source.where}: {len(source):,} images"]
    if isinstance(source, BinSource):
        genuine = int(source.same.sum())
        lines.append(f"  {len(source.same):,} pairs, {genuine:,} of them genuine")
    if source.identity_names:
        sizes = np.bincount(source.identities, minlength=len(source.identity_names))
        low, middle, high = (int(v) for v in np.percentile(sizes, [0, 50, 100]))
        lines.append(
            f"  {len(sizes):,} identities of {low} to {high} images (median {middle}), "
            f"{int((sizes == 1).sum()):,} with a single one"
        )
    else:
        lines.append("  no identities")
    index = np.random.default_rng(70).permutation(len(source))[:sample]
    found: Counter[str] = Counter()
    problems = []
    for i in index:
        try:
            height, width = source.read(int(i)).shape[:2]
            found[f"{width}x{height}"] += 1
        except (UnreadableImage, DataError, OSError) as error:
            problems.append(f"  {source.name(int(i))}: {error}")
    sizes_text = ", ".join(f"{size} ({count})" for size, count in found.most_common(5))
    lines.append(f"  sizes of {len(index)} images looked at: {sizes_text or 'none readable'}")
    if problems:
        lines += [f"  {len(problems)} of them cannot be read:", *problems[:5]]
    lines.append(f"  items are named like {source.name(0)}")
    return lines


def extract_source(
    source: FaceSource,
    output: Path,
    limit: int | None = None,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Write images as they are stored into ``output/IDENTITY/NUMBER.jpg``.

    An image that is there already is kept, so a stopped run goes on where it was.

    Returns:
        Images written, and images that were there.

    Raises:
        DataError: an item cannot be read.
    """
    count = len(source) if limit is None else min(limit, len(source))
    written = existing = 0
    names = []
    for i in range(count):
        number = int(source.identities[i])
        folder = output / source.identity_names[number] if number >= 0 else output
        stem = source.name(i).rpartition("#")[2] if "#" in source.name(i) else str(i)
        there = [p for p in (folder / f"{int(stem):08d}{s}" for s in _SUFFIXES) if p.is_file()]
        if there:
            existing += 1
            names.append(there[0])
        else:
            data = source.encoded(i)
            target = folder / f"{int(stem):08d}{source.suffix(i, data)}"
            write_bytes(target, data)
            written += 1
            names.append(target)
        if progress:
            progress(i + 1, count)
    if isinstance(source, BinSource) and count == len(source):
        _write_pairs(source, names, output)
    return written, existing


_SUFFIXES = (".jpg", ".png", ".webp", ".bmp")


def _write_pairs(source: BinSource, names: list[Path], output: Path) -> None:
    """The pairs with the folds of the file's order, ten of equal length."""
    folds = contiguous_folds(len(source.same), FOLDS)
    with (
        whole(output / "pairs.csv") as partial,
        partial.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(["a", "b", "same", "fold"])
        for a, b, same, fold in zip(source.a, source.b, source.same, folds, strict=True):
            writer.writerow([names[a].name, names[b].name, int(same), int(fold)])
