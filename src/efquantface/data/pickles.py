"""Reads plain data out of a pickle, without unpickling it.

Python's unpickler calls whatever a file names. This reader walks the opcodes with ``pickletools``, which
decodes arguments and runs nothing. It builds lists, tuples, numbers, bytes and NumPy arrays only. The
names that arrays are written with are recognized, never imported or called. Time is linear in the file's
size, and memory is a small multiple of it.
"""

from __future__ import annotations

import mmap
import pickletools
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from efquantface.errors import DataError

_MARK, _OPEN = object(), object()
_DEEPEST = 100  # levels of nested containers
_SPARE = 1 << 20  # bytes that conversions may make beyond the file's own size
_DTYPES = {"u1", "i1", "b1", "u2", "i2", "i4", "u4", "i8", "u8", "f4", "f8"}
# modules of NumPy 1 and 2 that write the same things
_KNOWN = {
    "_reconstruct": ("numpy.core.multiarray", "numpy._core.multiarray"),
    "scalar": ("numpy.core.multiarray", "numpy._core.multiarray"),
    "_frombuffer": ("numpy.core.numeric", "numpy._core.numeric"),
    "ndarray": ("numpy",),
    "dtype": ("numpy",),
    "encode": ("_codecs",),
    "bytes": ("builtins", "__builtin__"),
    "bytearray": ("builtins", "__builtin__"),
}


@dataclass
class _Name:
    """A global that a pickle names."""

    name: str


@dataclass
class _Array:
    """An array that is being built."""

    value: Any = None
    dtype: str = ""
    parts: list[Any] = field(default_factory=list)


def load_plain(path: Path) -> Any:
    """The data of a pickle file of lists, tuples, numbers, bytes and NumPy arrays.

    Strings of Python 2 come as bytes. An object that the file refers to several times comes as one
    object.

    Raises:
        DataError: it is truncated, no pickle, contains itself, is nested deeper than 100, or holds
            anything else. The text has the byte offset.
    """
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path}: truncated: it has no byte")
    # a map gives no more bytes than the file has; a file would first make room for all that is claimed
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        reader = _Reader(path, size)
        try:
            for opcode, argument, position in pickletools.genops(cast(IO[bytes], stream)):
                reader.position = position or 0
                if opcode.name == "STOP":
                    return reader.result()
                reader.step(opcode.name, argument)
        except DataError:
            raise
        except _DAMAGES as error:
            said = str(error).replace("\n", " ")[:200] or type(error).__name__
            raise DataError(
                f"{path}: damaged or no pickle, at byte {reader.position} ({said})"
            ) from None
    raise DataError(f"{path}: truncated after byte {reader.position}")


class _Reader:
    def __init__(self, path: Path, size: int) -> None:
        self.path, self.position = path, 0
        self.left = size + _SPARE  # bytes that conversions may still make
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        if len(self.stack) != 1:
            raise self._refused(f"{len(self.stack)} objects")
        return _finished(self.stack[0], {}, 0)

    def step(self, name: str, argument: Any) -> None:
        """Apply one opcode."""
        if name in _PUSH:
            self.stack.append(_PUSH[name](argument))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[int(argument)])
        elif name in ("TUPLE", "LIST"):
            items = self._above_mark()
            self.stack.append(tuple(items) if name == "TUPLE" else items)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif name == "APPEND":
            item = self.stack.pop()
            self.stack[-1].append(item)
        elif name == "APPENDS":
            items = self._above_mark()
            self.stack[-1].extend(items)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._global(name, argument)
        elif name == "REDUCE":
            arguments = self.stack.pop()
            self.stack[-1] = self._reduce(self.stack[-1], arguments)
        elif name == "BUILD":
            state = self.stack.pop()
            self._build(self.stack[-1], state)
        elif name not in ("PROTO", "FRAME"):
            raise self._refused(f"the opcode {name}")

    def _above_mark(self) -> list[Any]:
        where = len(self.stack) - 1
        while self.stack[where] is not _MARK:  # an IndexError where there is none
            where -= 1
        items = self.stack[where + 1 :]
        del self.stack[where:]
        return items

    def _global(self, opcode: str, argument: Any) -> None:
        if opcode == "GLOBAL":
            module, _, name = str(argument).partition(" ")
        else:
            name, module = _text(self.stack.pop()), _text(self.stack.pop())
        if module not in _KNOWN.get(name, ()):
            raise self._refused(f"{module}.{name}")
        self.stack.append(_Name(name))

    def _reduce(self, what: Any, arguments: Any) -> Any:
        if not isinstance(what, _Name) or not isinstance(arguments, tuple):
            raise self._refused("a call of something unknown")
        if what.name == "encode":  # Python 3 writes bytes so in protocol 2
            return self._paid(_text(arguments[0]).encode("latin-1"))
        if what.name in ("bytes", "bytearray"):
            return self._bytes(arguments[0]) if arguments else b""
        if what.name == "_reconstruct":
            return _Array()
        if what.name == "dtype":
            code = _text(arguments[0])
            if code.lstrip("|<=") not in _DTYPES:
                raise self._refused(f"an array of dtype {code!r}")
            return _Array(dtype=code)
        if what.name == "scalar":
            dtype, raw = arguments
            return np.frombuffer(self._bytes(raw), dtype.dtype)[0].item()
        if what.name == "_frombuffer":
            raw, dtype, shape, order = arguments
            flat = np.frombuffer(self._bytes(raw), dtype.dtype)
            return flat.reshape(shape, order="F" if _text(order) == "F" else "C")
        raise self._refused(f"a call of {what.name}")

    def _build(self, target: Any, state: Any) -> None:
        """The state of an array: (version, shape, dtype, is Fortran, bytes)."""
        if not isinstance(target, _Array):
            raise self._refused("an object's state")
        if target.dtype:  # a dtype's own state: its byte order
            if _text(state[1]) == ">":
                raise self._refused("an array in big endian order")
            return
        _, shape, dtype, fortran, raw = state
        flat = np.frombuffer(self._bytes(raw), dtype.dtype)
        target.value = flat.reshape(shape, order="F" if fortran else "C")

    def _bytes(self, value: Any) -> bytes:
        """Bytes unchanged; a copy of others, which counts against :attr:`left`."""
        return value if isinstance(value, bytes) else self._paid(_bytes(value))

    def _paid(self, made: bytes) -> bytes:
        """Count converted bytes, since a small file may convert one text again and again.

        Raises:
            DataError: they exceed the file's size.
        """
        self.left -= len(made)
        if self.left < 0:
            raise self._refused("more conversions of the same bytes than a real file has")
        return made

    def _refused(self, what: str) -> DataError:
        return DataError(
            f"{self.path}: holds {what} at byte {self.position}; lists, tuples, numbers, bytes and "
            "arrays are read, and nothing else is ever unpickled"
        )


def _text(value: Any) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("latin-1")
    if not isinstance(value, bytes | bytearray):
        raise TypeError(f"{type(value).__name__} where bytes are expected")
    return bytes(value)


def _finished(value: Any, made: dict[int, Any], depth: int) -> Any:
    """Replace builders by their arrays everywhere; each object is visited once, by its ``id``."""
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without its content")
        return value.value
    if isinstance(value, _Name) or value is _MARK:
        raise ValueError("a name where data is expected")
    if not isinstance(value, list | tuple):
        return value
    if made.get(id(value)) is _OPEN:
        raise ValueError("a list that contains itself")
    if id(value) not in made:
        if depth == _DEEPEST:
            raise ValueError(f"nested deeper than {_DEEPEST}")
        made[id(value)] = _OPEN
        items = [_finished(item, made, depth + 1) for item in value]
        made[id(value)] = items if isinstance(value, list) else tuple(items)
    return made[id(value)]


def _as_is(value: Any) -> Any:
    return value


_DAMAGES = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError)
# pickletools gives the bytes of Python 2's strings as Latin-1 text
_PUSH = {
    "MARK": lambda _: _MARK,
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _as_is),
    **dict.fromkeys(("FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"), _as_is),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _as_is),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _bytes),
}
