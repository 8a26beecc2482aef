"""Writes all files of the package: each appears whole or not at all.

A failure is a :class:`WriteError`. It names the file and, where the disk is full, the room that is left.
Every operation that can fail goes through :data:`disk`, which tests replace by one that fails.
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
_NO_NAME = re.compile(r"[\x00-\x1f:]")  # not allowed in names of files on some systems
_BUFFER = 1 << 18  # bytes
_NO_ROOM = 1 << 20  # bytes; with less room, a library's own error means a full disk


class Disk:
    """The calls of the operating system that write."""

    def make_folder(self, path: Path, mode: int = 0o777) -> None:
        """Make a folder and those above it, unless it exists."""
        path.mkdir(parents=True, exist_ok=True, mode=mode)

    def open(self, path: Path, flags: int, mode: int) -> BinaryIO:
        """Open a file for writing, without a buffer."""
        return os.fdopen(os.open(path, flags | getattr(os, "O_BINARY", 0), mode), "wb", 0)

    def write(self, stream: BinaryIO, data: bytes | memoryview) -> int:
        """Write some of ``data``; returns how many bytes."""
        return stream.write(data)

    def replace(self, temporary: Path, path: Path) -> None:
        """Rename ``temporary`` to ``path``, in place of an existing file."""
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
    """A buffered stream to ``path``; if the body fails, the buffer is dropped."""
    raw = _Raw(path, os.O_WRONLY | os.O_CREAT | flags, mode)
    try:
        stream = io.BufferedWriter(raw, _BUFFER)
        yield cast(BinaryIO, stream)
        stream.flush()
    finally:
        raw.close()


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write a UTF-8 text file, whole or not at all; bytes of names that are not UTF-8 are kept.

    Raises:
        WriteError: it cannot be written.
    """
    write_bytes(path, text.encode("utf-8", "surrogateescape"), private=private)


def write_bytes(path: Path, data: bytes, *, private: bool = False, shared: bool = False) -> None:
    """Write a file, whole or not at all; ``private`` and ``shared`` as of :func:`whole`.

    Raises:
        WriteError: it cannot be written.
    """
    with whole(path, private=private, shared=shared) as stream:
        stream.write(data)


@contextmanager
def whole(path: Path, *, private: bool = False, shared: bool = False) -> Iterator[BinaryIO]:
    """A stream whose bytes become the file ``path`` at the end; if writing fails, there is no new file.

    Missing folders are made.

    Args:
        path: the file.
        private: only its owner can read it (mode 0600).
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
    """Remove temporary files of ``path`` that killed processes left, see ``shared`` of :func:`whole`.

    Args:
        path: the file.
        older: seconds without a write, after which no process is writing.
    """
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > older:
                left.unlink()


def below(root: Path, name: str, where: str) -> Path:
    """The path of a name below ``root``, where the name comes from somebody's file.

    Args:
        root: the folder.
        name: relative to it.
        where: the file with the name, for the message.

    Raises:
        DataError: the name is empty, absolute, or climbs out of the folder.
    """
    if kept_below(name) != name:
        raise DataError(f"{where}: {name!r} leads out of {root}, or is no name of a file")
    return root / name


def kept_below(name: str) -> str:
    """Make a name from somebody's file a relative path that stays below its folder.

    Names that already do so are unchanged.

    Example:
        >>> kept_below("../../etc/passwd"), kept_below("n000001/0001"), kept_below("/abs")
        ('up/up/etc/passwd', 'n000001/0001', 'abs')
    """
    parts = [_NO_NAME.sub("_", part) for part in name.replace("\\", "/").split("/")]
    tame = ["up" if part.strip(". ") == "" and len(part) > 1 else part for part in parts]
    return "/".join(part for part in tame if part not in ("", ".")) or "unnamed"


def is_file(path: Path) -> bool:
    """Whether a file exists; False also for names that the system does not allow."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def make_folder(path: Path, *, private: bool = False) -> None:
    """Make a folder and those above it; ``private`` means mode 0700.

    Raises:
        WriteError: it cannot be made.
    """
    with writing(path):
        disk.make_folder(path, 0o700 if private else 0o777)


def move(temporary: Path, path: Path) -> None:
    """Give a finished file or folder its own name, in place of an existing one.

    A folder replaces a whole folder, with all its files. If that fails, the old folder stays.

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
    """Remove a file, or a folder with its content; a missing one is no error.

    Raises:
        WriteError: it cannot be removed.
    """
    with writing(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def append_text(path: Path, text: str) -> None:
    """Append to a UTF-8 text file.

    Raises:
        WriteError: it cannot be written.
    """
    with writing(path), _opened(path, os.O_APPEND, 0o666) as stream:
        stream.write(text.encode("utf-8", "backslashreplace"))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors of the operating system into a :class:`WriteError`, even if a library rewords them.

    Raises:
        WriteError: the body fails to write.
    """
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
    """A folder that is removed at the end: in ``beside``, or in the system's temporary folder.

    Raises:
        WriteError: there is no room or no permission; ``TMPDIR`` sets another folder.
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
    """Free bytes on the disk of ``path``, which may not exist."""
    there = next((p for p in (path, *path.absolute().parents) if p.exists()), Path())
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return 1 << 60  # not known: assume enough


def _failed(path: Path, number: int | None, why: str) -> WriteError:
    if number in _FULL:
        left = free_bytes(path) / 1e6
        return WriteError(f"{path}: the disk is full ({left:,.1f} MB are left); make room there")
    return WriteError(f"{path}: cannot be written ({why})")
