"""Sources of face images: items with a name and an identity, decoded one by one when needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from efquantface.data.images import SUFFIXES, read_image
from efquantface.errors import DataError
from efquantface.reading import is_number

Identities = npt.NDArray[np.int64]


class NoFaces(DataError):
    """A file is whole but holds no images, as shards of a large set may."""


class FaceSource(ABC):
    """Face images that are not in memory.

    An item's name is a path (of an image file) or ``FILE#KEY`` (a record of a container), relative
    to :attr:`root`; list files and pair lists name items in the same way.

    Attributes:
        where: the source as the user named it, for messages.
        root: the folder that names are relative to.
        identities: int64 (N,) number of each item's identity; -1 for all where none are known.
        identity_names: names of the identities.
    """

    where: str
    root: Path
    identities: Identities
    identity_names: list[str]

    def __len__(self) -> int:
        return len(self.identities)

    @abstractmethod
    def name(self, index: int) -> str:
        """The item's name."""

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """The item's image file as it is stored.

        Raises:
            OSError, DataError: it cannot be read.
        """

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        """The item as uint8 RGB (H,W,3).

        Raises:
            UnreadableImage: it is not a whole image.
        """
        return read_image(self.encoded(index))

    def position(self, key: str) -> int:
        """The index of the item named ``FILE#KEY``.

        Raises:
            DataError: there is no such item, or the key is no record number.
        """
        wanted = self.name(0).rpartition("#")[0] + f"#{record_number(self.where, key)}"
        # files without an index are small enough to be searched
        found = next((i for i in range(len(self)) if self.name(i) == wanted), None)
        if found is None:
            raise DataError(f"{self.where}: has no item {key}")
        return found

    def suffix(self, index: int, data: bytes) -> str:
        """The ending of a file of the item's stored bytes, such as ``.jpg``."""
        if data.startswith(b"\x89PNG"):
            return ".png"
        return ".webp" if data[8:12] == b"WEBP" else ".bmp" if data[:2] == b"BM" else ".jpg"


class FolderSource(FaceSource):
    """A folder: one subfolder per identity, or images without identities."""

    def __init__(self, root: Path, names: Sequence[str] | None = None) -> None:
        """``names`` (relative to ``root``) are its items; None takes all images below ``root``.

        Raises:
            DataError: ``names`` is None, and the folder is missing or holds no image.
        """
        self.where, self.root = str(root), root
        self.names = (
            [str(p.relative_to(root)) for p in find_images(root)] if names is None else list(names)
        )
        self.identities, self.identity_names = numbered(
            [parts[0] if len(parts := Path(name).parts) > 1 else "" for name in self.names]
        )

    def name(self, index: int) -> str:
        return self.names[index]

    def encoded(self, index: int) -> bytes:
        return (self.root / self.names[index]).read_bytes()

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        return read_image(self.root / self.names[index])

    def suffix(self, index: int, data: bytes) -> str:
        return Path(self.names[index]).suffix


def record_number(where: str, key: str) -> int:
    """A key as a record's number.

    Raises:
        DataError: it is no whole number from 0 on.
    """
    if not is_number(key):
        raise DataError(f"{where}: {key!r} is no record number")
    return int(key)


def numbered(labels: Sequence[str]) -> tuple[Identities, list[str]]:
    """Numbers int64 (N,) of labels, and the names by number; -1 and no names where all are empty."""
    if set(labels) == {""}:
        return np.full(len(labels), -1, np.int64), []
    unique = sorted(set(labels))
    numbers = {label: n for n, label in enumerate(unique)}
    return np.asarray([numbers[label] for label in labels], np.int64), unique


def find_images(root: Path) -> list[Path]:
    """All image files below ``root``, sorted. Links to folders are followed, but never in circles.

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
            continue  # a link to nothing or in a circle, or a folder without permission
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
