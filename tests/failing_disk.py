"""Disks that are watched: what is done is named, and one operation may fail."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from efquantface.files import Disk


class WatchedDisk(Disk):
    """Says what it is about to do; what :meth:`before` raises keeps it from being done."""

    def __init__(self) -> None:
        self._paths: dict[int, Path] = {}

    def before(self, kind: str, path: Path) -> None:
        """``folder``, ``open``, ``write`` or ``replace`` is next, of the file that is meant."""

    def make_folder(self, path: Path, mode: int = 0o777) -> None:
        self.before("folder", path)
        super().make_folder(path, mode)

    def open(self, path: Path, flags: int, mode: int) -> BinaryIO:
        self.before("open", path)
        stream = super().open(path, flags, mode)
        self._paths[id(stream)] = path
        return stream

    def write(self, stream: BinaryIO, data: bytes | memoryview) -> int:
        self.before("write", self._paths[id(stream)])
        return super().write(stream, data)

    def replace(self, temporary: Path, path: Path) -> None:
        self.before("replace", path)
        super().replace(temporary, path)


class FailingDisk(WatchedDisk):
    """Counts operations as (kind, file name); the one at ``at`` fails with ``number``, and so do all
    later ones while ``full``."""

    def __init__(self, at: int | None = None, number: int = 28, full: bool = False) -> None:
        super().__init__()
        self.at, self.number, self.full = at, number, full
        self.done: list[tuple[str, str]] = []

    def before(self, kind: str, path: Path) -> None:
        here = len(self.done)
        self.done.append((kind, path.name))
        if self.at is not None and (here == self.at or (self.full and here > self.at)):
            raise OSError(self.number, os.strerror(self.number), path.name)
