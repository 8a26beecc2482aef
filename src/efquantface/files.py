"""The one door through which files are written: each appears whole or not at all.

A failure is a :class:`WriteError` that names the file, and the room that is left where the disk is full.
Every operation that can fail goes through :data:`disk`, in whose place tests put one that does.
"""

from __future__ import annotations

import errno
import glob
import io
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from efquantface.errors import DataError, EfqError, WriteError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_NAME = re.compile(r"[\x00-\x1f:]")  # in names of files, on some system
_BUFFER = 1 << 18  # bytes
_NO_ROOM = 1 << 20  # bytes; below it a library's own error means a full disk


class Disk:
    """What writing asks of the operating system."""

    def make_folder(self, path: Path, mode: int = 0o777) -> None:
        """Make a folder and those above it; one that is there stays."""
        path.mkdir(parents=True, exist_ok=True, mode=mode)

    def open(self, path: Path, flags: int, mode: int) -> BinaryIO:
        """Open for writing."""
        return os.fdopen(os.open(path, flags | getattr(os, "O_BINARY", 0), mode), "wb", 0)

    def write(self, stream: BinaryIO, data: bytes | memoryview) -> int:
        """Write some of ``data``; returns how much."""
        return stream.write(data)

    def replace(self, temporary: Path, path: Path) -> None:
        """Rename over what is there."""
        os.replace(temporary, path)


disk = Disk()


class _Raw(io.RawIOBase):
    """A file whose bytes go through :data:`disk`."""

    def __init__(self, path: Path, flags: int, mode: int) -> None:
        self.file = disk.open(path, flags, mode)

    def write(self, data: Any) -> int:
        return disk.write(self.file, memoryview(data).cast("B"))

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def close(self) -> None:
        self.file.close()
        super().close()


@contextmanager
def _opened(path: Path, flags: int, mode: int) -> Iterator[BinaryIO]:
    """A buffered stream to ``path``; where its body fails, the buffer is dropped."""
    raw = _Raw(path, os.O_WRONLY | os.O_CREAT | flags, mode)
    try:
        stream = io.BufferedWriter(raw, _BUFFER)
        yield cast(BinaryIO, stream)
        stream.flush()
    finally:
        raw.close()


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write a UTF-8 text file whole or not at all; names that are not UTF-8 keep their bytes.

    Raises:
        WriteError: it cannot be written.
    """
    write_bytes(path, text.encode("utf-8", "surrogateescape"), private=private)


def write_bytes(path: Path, data: bytes, *, private: bool = False, shared: bool = False) -> None:
    """Write a file whole or not at all; ``private`` and ``shared`` as of :func:`whole`.

    Raises:
        WriteError: it cannot be written.
    """
    with whole(path, private=private, shared=shared) as stream:
        stream.write(data)


@contextmanager
def whole(path: Path, *, private: bool = False, shared: bool = False) -> Iterator[BinaryIO]:
    """A stream whose bytes become ``path`` at the end, and nothing where writing fails.

    Folders on the way to it are made.

    Args:
        private: readable by its owner only (mode 0600).
        shared: several processes may write it at once; the last one wins.

    Raises:
        WriteError: it cannot be written.
    """
    own = f".{os.getpid()}-{threading.get_ident()}" if shared else ""
    temporary = path.with_name(f"{path.name}{own}.partial")
    with writing(path):
        disk.make_folder(path.parent)
        try:
            with _opened(temporary, os.O_TRUNC, 0o600 if private else 0o666) as stream:
                yield stream
            disk.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def sweep(path: Path, older: float) -> None:
    """Remove what killed processes left of ``path``, written by :func:`whole` with ``shared``.

    Args:
        older: seconds that nothing was written to it, so that no process is at work on it.
    """
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > older:
                left.unlink()


def below(root: Path, name: str, where: str) -> Path:
    """A path below ``root`` by a name that comes out of somebody's file.

    Args:
        where: the file, for the message.

    Raises:
        DataError: the name is empty, absolute, or climbs out of the folder.
    """
    if kept_below(name) != name:
        raise DataError(f"{where}: {name!r} leads out of {root}, or is no name of a file")
    return root / name


def kept_below(name: str) -> str:
    """A name out of somebody's file as a relative path that stays below its folder.

    Names that do so already come back as they are.

    Example:
        >>> kept_below("../../etc/passwd"), kept_below("n000001/0001"), kept_below("/abs")
        ('up/up/etc/passwd', 'n000001/0001', 'abs')
    """
    parts = [_NO_NAME.sub("_", part) for part in name.replace("\\", "/").split("/")]
    tame = ["up" if part.strip(". ") == "" and len(part) > 1 else part for part in parts]
    return "/".join(part for part in tame if part not in ("", ".")) or "unnamed"


def is_file(path: Path) -> bool:
    """Whether it is there; what cannot be looked at (a name that no system takes) is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def make_folder(path: Path, *, private: bool = False) -> None:
    """Make a folder and those above it.

    Raises:
        WriteError: it cannot be made.
    """
    with writing(path):
        disk.make_folder(path, 0o700 if private else 0o777)


def move(temporary: Path, path: Path) -> None:
    """Give a finished file or folder its own name, in place of what has it.

    A folder comes whole in place of a folder, whose files go; where it cannot, the old one stays.

    Raises:
        WriteError: it cannot be moved.
    """
    if not (temporary.is_dir() and path.is_dir()):
        with writing(path):
            disk.replace(temporary, path)
        return
    with temporary_folder(path.absolute().parent) as aside, writing(path):
        disk.replace(path, aside / path.name)
        try:
            disk.replace(temporary, path)
        except BaseException:
            disk.replace(aside / path.name, path)
            raise


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; what is not there is removed already.

    Raises:
        WriteError: it cannot be removed.
    """
    with writing(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def append_text(path: Path, text: str) -> None:
    """Add to a UTF-8 text file.

    Raises:
        WriteError: it cannot be written.
    """
    with writing(path), _opened(path, os.O_APPEND, 0o666) as stream:
        stream.write(text.encode("utf-8", "backslashreplace"))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the operating system as :class:`WriteError`, also where a library rewords them."""
    try:
        yield
    except OSError as error:
        raise _failed(path, error.errno, error.strerror or str(error)) from None
    except EfqError:
        raise
    except Exception as error:
        if free_bytes(path) > _NO_ROOM:
            raise
        raise _failed(path, errno.ENOSPC, str(error)) from None


@contextmanager
def temporary_folder(beside: Path | None = None) -> Iterator[Path]:
    """A folder that goes at the end: in ``beside``, or where the system keeps such things.

    Raises:
        WriteError: there is no room for it, or nobody may write there; ``TMPDIR`` names another place.
    """
    try:
        where = beside or Path(tempfile.gettempdir())
        folder = tempfile.TemporaryDirectory(prefix=".efq-", dir=where, ignore_cleanup_errors=True)
    except OSError as error:
        told = _failed(beside or Path("temporary files"), error.errno, error.strerror or str(error))
        hint = "" if beside else "; TMPDIR names another place"
        raise WriteError(f"{told}{hint}") from None
    with folder as name, writing(Path(name)):
        yield Path(name)


def free_bytes(path: Path) -> int:
    """Room on the disk that holds ``path``, or would."""
    there = next((p for p in (path, *path.absolute().parents) if p.exists()), Path())
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return 1 << 60  # not to be told


def _failed(path: Path, number: int | None, why: str) -> WriteError:
    if number in _FULL:
        left = free_bytes(path) / 1e6
        return WriteError(f"{path}: the disk is full ({left:,.1f} MB are left); make room there")
    return WriteError(f"{path}: cannot be written ({why})")
