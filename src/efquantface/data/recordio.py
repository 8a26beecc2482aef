"""InsightFace's training records (``train.rec`` and ``train.idx``), read without mxnet.

A RecordIO record is ``magic u32, flag and length u32, payload, padding to 4 bytes``. A payload that
contains the magic number is split there into several records. A face record's payload is ``flag u32,
label f32, id u64, id2 u64``, then ``flag`` floats that replace the label, then the image file. Record
0 has no image; its label is (records of images + 1, end of the identity records). Identity records
follow the images and name ranges of them. All numbers are little endian.
"""

from __future__ import annotations

import math
import mmap
import struct
from array import array
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from efquantface.data.source import FaceSource, NoFaces, numbered, record_number
from efquantface.downloads import stand_in
from efquantface.errors import DataError
from efquantface.reading import is_number

_Int64 = npt.NDArray[np.int64]
MAGIC = 0xCED7230A
_HEADER = struct.Struct("<IfQQ")
_LARGEST_LABEL = 1024  # floats; a longer label means that it is no face record


class _Head(NamedTuple):
    """A face record's label, and where its image begins in the payload."""

    label: tuple[float, ...]
    image: int


class RecordFile:
    """Random access to the records of a ``.rec`` file by the keys of its ``.idx``."""

    def __init__(self, path: Path) -> None:
        """Open ``path`` and the index beside it; without an index all records are visited once.

        Raises:
            DataError: it is empty or no RecordIO, or the index does not fit.
        """
        self.path = path
        with path.open("rb") as stream:
            instead = stand_in(path)
            if instead:
                raise DataError(f"{path}: {instead}")
            if path.stat().st_size < 8:
                raise DataError(f"{path}: is {path.stat().st_size} bytes long, no record fits")
            self.data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        index = path.with_suffix(".idx")
        numbers, places = self._read_index(index) if index.is_file() else self._walk()
        if not numbers:
            raise DataError(f"{index}: lists no records")
        keys = np.frombuffer(numbers, np.int64)
        order = np.argsort(keys, kind="stable")
        last = np.append(keys[order][1:] != keys[order][:-1], True)  # of a key that is there twice
        self.keys = keys[order][last]
        self.offsets = np.frombuffer(places, np.int64)[order][last]

    def _read_index(self, index: Path) -> tuple[array[int], array[int]]:
        keys, offsets = array("q"), array("q")
        beyond, first = 0, (0, 0, 0)
        with index.open(encoding="ascii", errors="replace") as stream:
            for number, line in enumerate(stream):
                words = line.split()
                if not words:
                    continue
                if len(words) != 2 or not all(is_number(w) for w in words):
                    raise DataError(
                        f"{index}:{number + 1}: {line.rstrip()[:60]!r} is not 'key<TAB>offset'"
                    )
                keys.append(int(words[0]))
                offsets.append(int(words[1]))
                if offsets[-1] + 8 > len(self.data):
                    first = first if beyond else (number + 1, keys[-1], offsets[-1])
                    beyond += 1
        if beyond:
            self._refuse(index, np.frombuffer(offsets, np.int64), first, beyond)
        return keys, offsets

    def _refuse(
        self, index: Path, offsets: _Int64, first: tuple[int, int, int], beyond: int
    ) -> NoReturn:
        """Raise for an index that lists records behind the file's end.

        Either the file is cut, or the two are of different sets. ``first`` is the line, key and offset
        of the first such record.

        Raises:
            DataError: always.
        """
        last = int(offsets[offsets + 8 <= len(self.data)].max(initial=0))
        size = f"{len(self.data):,} bytes"
        if last and self._begins(last):  # every index has a record at 0
            raise DataError(
                f"{self.path}: truncated: it has {size}, and {index.name} lists {beyond:,} of "
                f"{len(offsets):,} records behind its end; download or copy it again"
            )
        line, key, offset = first
        raise DataError(
            f"{index}:{line}: key {key} points at byte {offset}, but {self.path} has {size}; "
            "the two files do not belong together"
        )

    def _begins(self, offset: int) -> bool:
        """Whether a record begins at ``offset``."""
        return bool(struct.unpack_from("<I", self.data, offset)[0] == MAGIC)

    def _walk(self) -> tuple[array[int], array[int]]:
        offsets = array("q")
        position = 0
        while position < len(self.data):
            offsets.append(position)
            position = self._parts(position)[1]
        return array("q", range(len(offsets))), offsets

    def payload(self, key: int) -> bytes:
        """A record's whole payload.

        Raises:
            DataError: a wrong magic number, an unknown flag, or truncation; the text has the byte
            offset.
        """
        parts, _ = self._parts(self.offset(key))
        return struct.pack("<I", MAGIC).join(self.data[a:b] for a, b in parts)

    def offset(self, key: int) -> int:
        """The byte at which a record begins.

        Raises:
            DataError: the index does not have the key.
        """
        found = int(np.searchsorted(self.keys, key))
        if found == len(self.keys) or self.keys[found] != key:
            raise DataError(f"{self.path}: has no record {key}")
        return int(self.offsets[found])

    def head(self, key: int) -> _Head:
        """A face record's label, without reading its image.

        Raises:
            DataError: the record is cut, or is no face record.
        """
        offset = self.offset(key)
        begin, end = self._part(offset)[:2]
        if end - begin < _HEADER.size:
            raise DataError(
                f"{self.path}: record {key} at byte {offset} has {end - begin} bytes, "
                f"a face record's header has {_HEADER.size}"
            )
        flag, label, _, _ = _HEADER.unpack_from(self.data, begin)
        if flag == 0:
            return _Head((label,), _HEADER.size)
        if flag > _LARGEST_LABEL or end - begin < _HEADER.size + 4 * flag:
            raise DataError(
                f"{self.path}: record {key} at byte {offset} promises a label of {flag} numbers "
                f"in {end - begin} bytes"
            )
        labels = struct.unpack_from(f"<{flag}f", self.data, begin + _HEADER.size)
        return _Head(labels, _HEADER.size + 4 * flag)

    def _part(self, offset: int) -> tuple[int, int, int, int]:
        """(begin, end, continuation flag, next offset) of the part at ``offset``."""
        if offset + 8 > len(self.data):
            raise DataError(
                f"{self.path}: truncated at byte {offset}, {len(self.data) - offset} bytes left"
            )
        magic, word = struct.unpack_from("<II", self.data, offset)
        if magic != MAGIC:
            raise DataError(
                f"{self.path}: no record at byte {offset} (magic {magic:#010x}, "
                f"expected {MAGIC:#010x})"
            )
        length = word & ((1 << 29) - 1)
        begin = offset + 8
        if begin + length > len(self.data):
            raise DataError(
                f"{self.path}: truncated: the record at byte {offset} has {length} bytes, "
                f"{len(self.data) - begin} are left"
            )
        return begin, begin + length, word >> 29, begin + (length + 3) // 4 * 4

    def _parts(self, offset: int) -> tuple[list[tuple[int, int]], int]:
        """(begin, end) of all parts of a record, and the offset of the next record."""
        parts: list[tuple[int, int]] = []
        position = offset
        while True:
            begin, end, flag, following = self._part(position)
            wanted = (0, 1) if not parts else (2, 3)
            if flag not in wanted:
                raise DataError(
                    f"{self.path}: the record at byte {position} has continuation flag {flag}, "
                    f"expected {wanted[0]} or {wanted[1]}"
                )
            parts.append((begin, end))
            position = following
            if flag in (0, 3):
                return parts, position


class RecSource(FaceSource):
    """The images of a ``.rec`` file, with the identities of their labels."""

    def __init__(self, path: Path) -> None:
        self.where, self.root = str(path), path.parent
        self.file = RecordFile(path)
        self.keys, labels = self._images()
        if not len(self.keys):
            raise NoFaces(f"{path}: holds no images")
        self.identities, self.identity_names = numbered(labels)

    def _images(self) -> tuple[_Int64, list[str]]:
        """Keys of image records in order, and their labels."""
        keys = self.file.keys
        first = self.file.head(int(keys[0]))
        if keys[0] == 0 and len(first.label) == 2 and len(self.file.payload(0)) == first.image:
            end = self._number(0)
            if end - 1 > keys[-1]:
                raise DataError(
                    f"{self.where}: record 0 promises images up to {end - 1}, "
                    f"the index ends at {keys[-1]}"
                )
            keys = keys[(keys >= 1) & (keys < end)]
        names: dict[int, str] = {}  # one text per identity, not per image
        numbers = (self._number(int(key)) for key in keys)
        return keys, [names.setdefault(n, f"{n:06d}") for n in numbers]

    def _number(self, key: int) -> int:
        """The first number of a record's label.

        Raises:
            DataError: it is not finite.
        """
        value = self.file.head(key).label[0]
        if not math.isfinite(value):
            raise DataError(f"{self.where}: record {key} has the label {value}")
        return int(value)

    def name(self, index: int) -> str:
        return f"{self.file.path.name}#{self.keys[index]}"

    def encoded(self, index: int) -> bytes:
        key = int(self.keys[index])
        return self.file.payload(key)[self.file.head(key).image :]

    def position(self, key: str) -> int:
        """The index of the record with this key.

        Raises:
            DataError: there is no image with that key, or the key is no number.
        """
        number = record_number(self.where, key)
        found = int(np.searchsorted(self.keys, number))
        if found == len(self.keys) or self.keys[found] != number:
            raise DataError(f"{self.where}: has no image with key {key}")
        return found
