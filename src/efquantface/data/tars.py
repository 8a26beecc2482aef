"""WebDataset's tars: files of one name but different endings are one sample.

A sample's key is its path up to the first dot of the file's name. Its image is the member with an
image's ending. Its identity is in ``.cls``, ``.id`` or ``.label``, or in a ``.json`` under one of
parquet's names of labels; otherwise it is the folder in the key.
"""

from __future__ import annotations

import mmap
import tarfile
from pathlib import Path
from typing import NamedTuple

from efquantface.data.images import SUFFIXES
from efquantface.data.parquet import LABELS
from efquantface.data.source import FaceSource, NoFaces, numbered
from efquantface.downloads import stand_in
from efquantface.errors import DataError
from efquantface.reading import parse_json

_TEXTS = (".cls", ".id", ".label")
_SMALL = 1 << 16  # bytes; a longer file is no label


class _Span(NamedTuple):
    """Where bytes lie in the file."""

    begin: int
    size: int


_Endings = dict[str, _Span]  # images of one sample by what their names end with


class TarSource(FaceSource):
    """The images of an uncompressed tar, by the keys of their samples."""

    def __init__(self, path: Path) -> None:
        """Read the headers; images stay in the file until they are read.

        Raises:
            DataError: it is no tar, compressed, or cut.
            NoFaces: it holds no images.
        """
        self.where, self.root, self.path = str(path), path.parent, path
        instead = stand_in(path)
        if instead:
            raise DataError(f"{path}: {instead}")
        if not path.stat().st_size:
            raise DataError(f"{path}: is empty")
        with path.open("rb") as stream:
            self.data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        found, labels = self._members()
        if not found:
            raise NoFaces(f"{path}: holds no images")
        images = [one for key, endings in found.items() for one in _images(key, endings)]
        self.keys = [key for key, _ in images]
        self.spans = [span for _, span in images]
        known = [labels.get(key, "") for key in self.keys]
        if not any(known):
            known = [key.rpartition("/")[0] for key in self.keys]
        self.identities, self.identity_names = numbered(known)
        self._places: dict[str, int] = {}

    def _members(self) -> tuple[dict[str, _Endings], dict[str, str]]:
        """Images and labels by the keys of their samples, in the file's order."""
        images: dict[str, _Endings] = {}
        labels: dict[str, str] = {}
        end = len(self.data)
        try:
            with tarfile.open(self.path, "r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined] # only places are kept
                    if not member.isreg() or member.issparse():
                        continue
                    span = _Span(member.offset_data, member.size)
                    if span.size < 0 or span.begin + span.size > end:
                        raise DataError(
                            f"{self.path}: truncated: {member.name!r} at byte {span.begin} has "
                            f"{span.size:,} bytes, {end - span.begin:,} are left"
                        )
                    self._sort(member.name, span, images, labels)
        except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError) as error:
            raise DataError(
                f"{self.path}: is no whole tar ({error}); a compressed one is unpacked first"
            ) from None
        return images, labels

    def _sort(
        self, name: str, span: _Span, images: dict[str, _Endings], labels: dict[str, str]
    ) -> None:
        """Keep a member that is an image or a label."""
        folder, slash, file = name.removeprefix("./").rpartition("/")
        stem, _, ending = file.partition(".")
        key, ending = f"{folder}{slash}{stem}", f".{ending.lower()}"
        if not stem:
            return  # hidden files; macOS packs one beside each file
        if f".{ending.rpartition('.')[2]}" in SUFFIXES:
            images.setdefault(key, {})[f".{file.partition('.')[2]}"] = span
        elif span.size <= _SMALL and (ending in _TEXTS or ending == ".json"):
            text = self.data[span.begin : span.begin + span.size]
            label = _named(text) if ending == ".json" else text.decode("utf-8", "replace").strip()
            if label:
                labels.setdefault(key, label)

    def name(self, index: int) -> str:
        return f"{self.path.name}#{self.keys[index]}"

    def encoded(self, index: int) -> bytes:
        begin, size = self.spans[index]
        return self.data[begin : begin + size]

    def position(self, key: str) -> int:
        if not self._places:
            self._places = {known: index for index, known in enumerate(self.keys)}
        if key not in self._places:
            raise DataError(f"{self.where}: has no sample {key!r}")
        return self._places[key]


def _images(key: str, endings: _Endings) -> list[tuple[str, _Span]]:
    """The image of a sample: the one without a second ending (``.jpg``, not ``.mask.png``).

    Where all have a second one, their names have dots in them (``J.Doe_1.jpg``): each is a sample.
    """
    plain = [span for ending, span in endings.items() if ending.count(".") == 1]
    if plain or len(endings) == 1:
        return [(key, (plain or list(endings.values()))[0])]
    return [(key + ending.rpartition(".")[0], span) for ending, span in endings.items()]


def _named(text: bytes) -> str:
    """The label in a sample's JSON; empty where there is none."""
    try:
        found = parse_json(text)
    except ValueError:
        return ""
    if not isinstance(found, dict):
        return ""
    value = next((found[name] for name in LABELS if found.get(name) is not None), "")
    return str(value) if isinstance(value, str | int) else ""
