"""List files: items of other sources, one per line, and how items are named."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from efquantface.data.containers import CONTAINERS, open_container
from efquantface.data.images import SUFFIXES, UnreadableImage, read_image
from efquantface.data.source import FaceSource, numbered
from efquantface.data.texts import text_of
from efquantface.errors import DataError
from efquantface.files import is_file, write_text


class ListSource(FaceSource):
    """Items by name: paths of images, or ``FILE#KEY``, relative to a folder."""

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        identities: Sequence[str] | None,
        where: str,
        follow_links: bool = True,
    ) -> None:
        """Resolve names.

        Args:
            root: folder that names are relative to.
            names: of the items.
            identities: one label per item; None takes the folder of an image, or the label of a record.
            where: the list, for messages.
            follow_links: accept items whose links lead elsewhere, see :class:`_Links`.

        Raises:
            DataError: no names, a name that leads nowhere, or a link that is not followed.
        """
        self.root, self.where, self.names = root, where, list(names)
        if not self.names:
            raise DataError(f"{where}: lists no items")
        opened: dict[str, FaceSource] = {}
        self.places: list[tuple[FaceSource | None, int]] = []
        labels = []
        links = None if follow_links else _Links(root, where)
        for number, name in enumerate(self.names):
            file, separator, key = name.rpartition("#")
            if separator and Path(file).suffix.lower() in CONTAINERS:
                if file not in opened:
                    if links:
                        links.check(file)
                    opened[file] = open_container(root / file)
                inner = opened[file]
                try:
                    index = inner.position(key)
                except DataError as error:
                    raise DataError(f"{where}: item {number + 1}: {error}") from None
                self.places.append((inner, index))
                label = int(inner.identities[index])
                labels.append(f"{file}#{inner.identity_names[label]}" if label >= 0 else "")
            else:
                if Path(name).suffix.lower() not in SUFFIXES or is_missing(root, name):
                    raise DataError(f"{where}: {name!r} is not an image file in {root}")
                if links:
                    links.check(name)
                self.places.append((None, number))
                labels.append(str(Path(name).parent))
        if identities is not None:
            labels = list(identities)
        elif len(set(labels)) == 1:
            labels = [""] * len(labels)
        self.identities, self.identity_names = numbered(labels)

    def name(self, index: int) -> str:
        return self.names[index]

    def encoded(self, index: int) -> bytes:
        inner, place = self.places[index]
        return (
            (self.root / self.names[index]).read_bytes() if inner is None else inner.encoded(place)
        )

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        inner, place = self.places[index]
        try:
            return read_image(self.root / self.names[index]) if inner is None else inner.read(place)
        except DataError as error:
            raise UnreadableImage(str(error)) from None


class _Links:
    """Refuses names whose links lead elsewhere: a list may come from a stranger.

    A name within the list's folder must lie there when links are resolved. A name outside of it
    (``../x/a.png``, ``/data/a.png``) must lie in the folder that it names, or in the list's.
    """

    def __init__(self, root: Path, where: str) -> None:
        self.root, self.where = os.path.realpath(root), where
        self._folders: dict[str, str | None] = {}

    def check(self, name: str) -> None:
        """See the class.

        Raises:
            DataError: naming the item and where it leads.
        """
        written = os.path.normpath(os.path.join(self.root, name))  # noqa: PTH118 - as it is written
        folder, file = os.path.split(written)
        if folder not in self._folders:
            real = os.path.realpath(folder)
            inside = _lies_in(written, self.root)
            self._folders[folder] = real if not inside or _lies_in(real, self.root) else None
        real_folder = self._folders[folder]
        link = os.path.islink(Path(real_folder or folder, file))  # noqa: PTH114 - never raises
        if real_folder is not None and not link:
            return
        real = os.path.realpath(written)
        home = self.root if _lies_in(written, self.root) else os.path.realpath(folder)
        if not (_lies_in(real, home) or _lies_in(real, self.root)):
            raise DataError(
                f"{self.where}: {name!r} is a link to {real}, outside of {home}; if you mean it, add "
                "--follow-links"
            )


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def is_missing(root: Path, name: str) -> bool:
    """Whether an item named by its path has no file; False for a record (``FILE#KEY``)."""
    file = name.rpartition("#")[0]
    return Path(file).suffix.lower() not in CONTAINERS and not is_file(root / name)


def read_list(path: Path, follow_links: bool = False) -> ListSource:
    """Read a list file: one item per line, optionally a tab and its identity; ``#`` begins a comment.

    Raises:
        DataError: it is no text in UTF-8 or UTF-16, an item leads nowhere, or a link leads out of the
            item's folder where ``follow_links`` is not asked for.
    """
    names, identities = items_of(text_of(path), str(path))
    return ListSource(path.parent, names, identities, str(path), follow_links)


def items_of(text: str, where: str) -> tuple[list[str], list[str] | None]:
    """Items and identities of a list file's text; identities are None where it has none.

    Raises:
        DataError: some items have an identity and others none.
    """
    names, identities = [], []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, identity = line.partition("\t")
        names.append(name.strip())
        identities.append(identity.strip())
    given = identities if all(identities) and identities else None
    if given is None and any(identities):
        raise DataError(f"{where}: some items have an identity and others none")
    return names, given


def read_excluded(path: Path) -> set[str]:
    """The items of a list file as normalized paths; text after a tab is ignored.

    Raises:
        DataError: the file cannot be read.
    """
    lines = text_of(path).splitlines()
    names = [line.partition("\t")[0].strip() for line in lines if not line.startswith("#")]
    return {full_name(path.parent, name) for name in names if name}


def full_name(root: Path, name: str) -> str:
    """An item's absolute path, whatever folder its name is relative to."""
    return os.path.normpath(Path.cwd() / root / name)  # links are not followed


def write_list(path: Path, source: FaceSource, index: Iterable[int], comment: str) -> None:
    """Write a list file of the items of ``source`` at ``index``, with identities, for :func:`read_list`.

    Raises:
        WriteError: it cannot be written.
    """
    lines = [f"# {comment}"]
    for i in index:
        name = os.path.relpath(source.root / source.name(int(i)), path.parent)
        number = int(source.identities[int(i)])
        lines.append(f"{name}\t{source.identity_names[number]}" if number >= 0 else name)
    write_text(path, "\n".join(lines) + "\n")
