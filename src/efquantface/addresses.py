"""Files by address (``s3://bucket/faces.tar``): whatever fsspec reaches, as local files.

What is read comes here whole, and what is written goes there whole: a file that is half sent has another
name until it is there. fsspec is asked for only where an address is given.
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
# what file systems say of a version of a file, by their names for it
_VERSION = ("ETag", "etag", "checksum", "md5Hash", "crc32c", "mtime", "LastModified", "created")


def is_address(name: str) -> bool:
    """Whether it names a file system, as in ``s3://`` or ``file://``."""
    return "://" in name


def last_name(address: str) -> str:
    """The last part of a path or address.

    Example:
        >>> last_name("s3://bucket/faces/part-0.tar")
        'part-0.tar'
    """
    return PurePosixPath(address).name if is_address(address) else Path(address).name


def folder_of(address: str) -> str:
    """The address of the folder that holds it."""
    return address.rstrip("/").rpartition("/")[0]


def expand(names: Sequence[str]) -> list[str]:
    """Names with their wildcards written out, in the given order.

    Raises:
        DataError: a pattern that nothing fits, or a file system that cannot be reached.
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
    """A copy of a file in ``folder``, under its own name.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    target = folder / (last_name(address) or "file")
    with reaching(address):
        system, path = _system(address)
        system.get_file(path, str(target))
    return target


def exists(address: str) -> bool:
    """Whether a file is there.

    Raises:
        DataError: the file system cannot be reached.
    """
    with reaching(address):
        system, path = _system(address)
        return bool(system.exists(path))


def read(address: str) -> bytes:
    """A file's bytes.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    with reaching(address):
        system, path = _system(address)
        return bytes(system.cat_file(path))


def version(address: str) -> str:
    """What the file system says of a file's version (size, tag, time); it changes with the file.

    Raises:
        DataError: it is not there.
    """
    with reaching(address):
        system, path = _system(address)
        told = system.info(path)
    parts = [f"{key} {told[key]}" for key in ("size", *_VERSION) if told.get(key) is not None]
    return ", ".join(parts)


@contextmanager
def sending(address: str) -> Iterator[Path]:
    """A local file that becomes ``address`` at the end, and nothing where its body fails.

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
    """What file systems raise, as one error that names the address.

    Raises:
        DataError: the file is not there, may not be read, or its file system is not known.
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
