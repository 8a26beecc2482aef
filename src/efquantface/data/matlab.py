"""MATLAB's level 5 files (``.mat``, as ``save -v7`` and ``-v6`` write them), as plain data.

It reads what lists of names and numbers need. Every length is checked against the bytes in the file.
Source: "MAT-File Format", The MathWorks.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from efquantface.errors import DataError

_HEADER = 128
_MOST = 64 << 20  # bytes that a compressed variable may unpack to; AgeDB's protocol has 3 MB
_DEEPEST = 32  # levels of nested cells and structs
_COMPRESSED, _MATRIX, _INT8, _INT32, _UINT32 = 15, 14, 1, 5, 6
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMBERS = range(6, 16)  # classes double to uint64
_DTYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_TEXTS = {2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}


@dataclass(frozen=True)
class Struct:
    """One element of a struct array: its fields' values, in the file's order."""

    fields: tuple[str, ...]
    values: tuple[Any, ...]


def read_variable(path: Path, name: str) -> Any:
    """One variable of a file.

    Returns:
        Numbers as an array in the stored type, text of one row as ``str``, a cell array as an array of
        objects, a struct array as an array of :class:`Struct`. Shapes are the file's.

    Raises:
        DataError: it is another format (level 4, HDF5), damaged, too large, of a kind that is not read
            (objects, sparse), or has no such variable.
    """
    data = path.read_bytes()
    if data[:19] == b"MATLAB 7.3 MAT-file":
        raise DataError(f"{path}: is MATLAB's HDF5 format; save it with -v7")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or data[:6] != b"MATLAB":
        raise DataError(f"{path}: is no MATLAB file of level 5")
    reader, names = _Reader(order), []
    try:
        rest = memoryview(data)[_HEADER:]
        while len(rest):
            kind, content, rest = reader.element(rest)
            if kind == _COMPRESSED:
                kind, content, _ = reader.element(_unpacked(content))
            if kind == _MATRIX:
                found, value = reader.matrix(content, name)
                if found == name:
                    return value
                names.append(found)
    except _Damage as damage:
        raise DataError(f"{path}: damaged MATLAB file ({damage})") from None
    raise DataError(
        f"{path}: has no variable {name!r}, only {', '.join(map(repr, names)) or 'none'}"
    )


class _Damage(Exception):
    """What is wrong with a file."""


def _unpacked(content: memoryview) -> memoryview:
    stream = zlib.decompressobj()
    try:
        made = stream.decompress(content, _MOST)
    except zlib.error as error:
        raise _Damage(str(error)) from None
    if not stream.eof and len(made) == _MOST:
        raise _Damage(f"a variable larger than {_MOST >> 20} MB")
    return memoryview(made)


class _Reader:
    def __init__(self, order: str) -> None:
        self.order = order

    def element(self, data: memoryview) -> tuple[int, memoryview, memoryview]:
        """Kind and content of the first element, and what follows it."""
        if len(data) < 8:
            raise _Damage("it ends within an element's tag")
        kind, size = (int(n) for n in np.frombuffer(data[:8], f"{self.order}u4"))
        if kind >> 16:  # four bytes of content at most, in the tag itself
            kind, size, start, end = kind & 0xFFFF, kind >> 16, 4, 8
            if size > 4:
                raise _Damage(f"a short element of {size} bytes")
        else:
            start, end = 8, 8 + size if kind == _COMPRESSED else 8 + size + -size % 8
        if start + size > len(data):
            raise _Damage(f"an element of {size} bytes where {len(data) - start} are left")
        return kind, data[start : start + size], data[min(end, len(data)) :]

    def matrix(self, data: memoryview, wanted: str | None, depth: int = 0) -> tuple[str, Any]:
        """Name and value of a matrix; the value is None where ``wanted`` is another name."""
        if depth > _DEEPEST:
            raise _Damage(f"nested deeper than {_DEEPEST}")
        if not len(data):  # a field that was never set
            return "", np.zeros((0, 0))
        flags, data = self.numbers(data, _UINT32)
        dims, data = self.numbers(data, _INT32)
        title, data = self.numbers(data, _INT8)
        if len(flags) != 2 or not 2 <= len(dims) <= 32 or min(dims) < 0:
            raise _Damage("a matrix without flags or sizes")
        name = title.tobytes().decode("latin-1")
        if wanted not in (None, name):
            return name, None
        kind, shape = int(flags[0]) & 0xFF, tuple(int(d) for d in dims)
        count = math.prod(shape)
        if count > len(data):
            raise _Damage(f"{count} elements in {len(data)} bytes")
        if kind == _CELL:
            return name, self.cells(data, shape, count, depth)
        if kind == _STRUCT:
            return name, self.structs(data, shape, count, depth)
        if kind == _CHAR:
            return name, self.text(data, shape, count)
        if kind in _NUMBERS:
            return name, self.array(data, shape, count, complex_=bool(int(flags[0]) & 0x800))
        raise _Damage(f"a variable of class {kind}, which is not read")

    def numbers(self, data: memoryview, kind: int) -> tuple[np.ndarray, memoryview]:
        """The numbers of an element of one kind, and what follows."""
        found, content, rest = self.element(data)
        dtype = np.dtype(self.order + _DTYPES[kind])
        if found != kind or len(content) % dtype.itemsize:
            raise _Damage(f"an element of kind {found} where {kind} is expected")
        return np.frombuffer(content, dtype), rest

    def children(self, data: memoryview, count: int, depth: int) -> list[Any]:
        """The values of ``count`` matrices in a row."""
        found = []
        for _ in range(count):
            kind, content, data = self.element(data)
            if kind != _MATRIX:
                raise _Damage(f"an element of kind {kind} where a matrix is expected")
            found.append(self.matrix(content, None, depth + 1)[1])
        return found

    def cells(self, data: memoryview, shape: tuple[int, ...], count: int, depth: int) -> np.ndarray:
        """A cell array."""
        return _objects(self.children(data, count, depth), shape)

    def structs(
        self, data: memoryview, shape: tuple[int, ...], count: int, depth: int
    ) -> np.ndarray:
        """A struct array."""
        sizes, data = self.numbers(data, _INT32)
        size = int(sizes[0]) if len(sizes) == 1 else 0
        text, data = self.numbers(data, _INT8)
        if size < 1 or len(text) % size:
            raise _Damage("a struct whose field names have no length")
        raw = text.tobytes()
        names = tuple(
            raw[i : i + size].partition(b"\0")[0].decode("latin-1")
            for i in range(0, len(raw), size)
        )
        if count * len(names) > len(data):
            raise _Damage(f"{count} structs of {len(names)} fields in {len(data)} bytes")
        values = self.children(data, count * len(names), depth)
        step = len(names)
        made = [Struct(names, tuple(values[i * step : (i + 1) * step])) for i in range(count)]
        return _objects(made, shape)

    def text(self, data: memoryview, shape: tuple[int, ...], count: int) -> str | np.ndarray:
        """Text of one row as a ``str``, of several as an array of them."""
        kind, content, _ = self.element(data)
        if kind == _INT8:  # other programs write ASCII so
            kind = 2
        if kind not in _TEXTS:
            raise _Damage(f"text of kind {kind}")
        code = _TEXTS[kind]
        if code in ("utf-16", "utf-32"):
            code += "-le" if self.order == "<" else "-be"
        try:
            text = bytes(content).decode(code)
        except UnicodeDecodeError as error:
            raise _Damage(str(error)) from None
        if shape[0] <= 1 and len(shape) == 2:
            return text
        if len(text) != count or len(shape) != 2:
            raise _Damage(f"{len(text)} characters for {shape}")
        return _objects([text[row :: shape[0]] for row in range(shape[0])], (shape[0],))

    def array(
        self, data: memoryview, shape: tuple[int, ...], count: int, complex_: bool
    ) -> np.ndarray:
        """Numbers in their stored type (MATLAB stores small ones in small types)."""
        if complex_:
            raise _Damage("complex numbers, which are not read")
        kind, content, _ = self.element(data)
        if kind not in _DTYPES:
            raise _Damage(f"numbers of kind {kind}")
        dtype = np.dtype(self.order + _DTYPES[kind])
        if len(content) != count * dtype.itemsize:
            raise _Damage(f"{len(content)} bytes for {count} numbers")
        return np.frombuffer(content, dtype).reshape(shape, order="F")


def _objects(items: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    flat = np.empty(len(items), object)
    for place, item in enumerate(items):
        flat[place] = item
    return flat.reshape(shape, order="F")
