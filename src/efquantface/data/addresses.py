"""Files at addresses that fsspec reaches (``s3://bucket/faces.tar``), read and written as local files.

A file is copied whole. While it is being sent it has a temporary name. fsspec is needed only where an
address is given.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from efquantface.errors import DataError, WriteError
from efquantface.extras import wanted_for
from efquantface.files import temporary_folder

_WILD = "*?["
# what file systems call a file's version, checksum or time
_VERSION = ("ETag", "etag", "checksum", "md5Hash", "crc32c", "mtime", "LastModified", "created")


def is_address(name: str) -> bool:
    """Whether a name has a file system, as in ``s3://`` or ``file://``."""
    return "://" in name


def last_name(address: str) -> str:
    """The last part of a path or address.

    Example:
        >>> last_name("s3://bucket/faces/part-0.tar")
        'part-0.tar'
    """
    return PurePosixPath(address).name if is_address(address) else Path(address).name


def folder_of(address: str) -> str:
    """The address of the folder that holds the file."""
    return address.rstrip("/").rpartition("/")[0]


def expand(names: Sequence[str]) -> list[str]:
    """Names with patterns replaced by the files that fit, in the given order.

    Raises:
        DataError: nothing fits a pattern, or a file system cannot be reached.
    """
    found: list[str] = []
    for name in names:
        if not any(c in name for c in _WILD) or os.path.lexists(name):
            found.append(name)
            continue
        if is_address(name):
            with reaching(name):
                system, path = _system(name)
                fits = sorted(str(system.unstrip_protocol(p)) for p in system.glob(path))
        else:
            fits = sorted(glob.glob(name))  # noqa: PTH207 - a pattern may begin anywhere
        if not fits:
            raise DataError(f"{name}: no file fits this pattern")
        found += fits
    return found


def fetch(address: str, folder: Path) -> Path:
    """Copy a file into ``folder``, under its own name; returns the path.

    Raises:
        DataError: it does not exist, or cannot be read.
    """
    target = folder / (last_name(address) or "file")
    with reaching(address):
        system, path = _system(address)
        system.get_file(path, str(target))
    return target


def exists(address: str) -> bool:
    """Whether a file exists.

    Raises:
        DataError: the file system cannot be reached.
    """
    with reaching(address):
        system, path = _system(address)
        return bool(system.exists(path))


def read(address: str) -> bytes:
    """A file's bytes.

    Raises:
        DataError: it does not exist, or cannot be read.
    """
    with reaching(address):
        system, path = _system(address)
        return bytes(system.cat_file(path))


def version(address: str) -> str:
    """A text of size, tag and time from the file system; it changes when the file changes.

    Raises:
        DataError: the file does not exist, or cannot be read.
    """
    with reaching(address):
        system, path = _system(address)
        told = system.info(path)
    parts = [f"{key} {told[key]}" for key in ("size", *_VERSION) if told.get(key) is not None]
    return ", ".join(parts)


@contextmanager
def sending(address: str) -> Iterator[Path]:
    """A local file that is sent to ``address`` at the end; if the body fails, nothing is sent.

    Raises:
        WriteError: it cannot be sent.
    """
    with temporary_folder() as folder:
        local = folder / "file"
        yield local
        temporary = f"{address}.{os.urandom(4).hex()}.partial"
        try:
            system, path = _system(address)
            _, there = _system(temporary)
            system.makedirs(folder_of(path), exist_ok=True)
            try:
                system.put_file(str(local), there)
                system.mv(there, path)
            except BaseException:
                if system.exists(there):
                    system.rm_file(there)
                raise
        except (OSError, ValueError, ImportError, NotImplementedError) as error:
            raise WriteError(f"{address}: cannot be written ({error})") from None


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """Turns errors of file systems into one that names the address.

    Raises:
        DataError: the file does not exist, may not be read, or its file system is not known.
    """
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{address}: no such file") from None
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        raise DataError(f"{address}: cannot be read ({error})") from None


def _system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    with wanted_for(f"{address}: an address"):
        import fsspec
    system, path = fsspec.core.url_to_fs(address)
    return system, str(path)
