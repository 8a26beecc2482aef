"""A disk on which one operation fails, and the record of all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from efquantface.files import Disk


class FailingDisk(Disk):
    """Counts operations as (kind, file name); the one at ``at`` fails with ``number``, and so do all
    later ones while ``full``."""

    def __init__(self, at: int | None = None, number: int = 28, full: bool = False) -> None:
        self.at, self.number, self.full = at, number, full
        self.done: list[tuple[str, str]] = []
        self._names: dict[int, str] = {}

    def _next(self, kind: str, name: str) -> None:
        here = len(self.done)
        self.done.append((kind, name))
        if self.at is not None and (here == self.at or (self.full and here > self.at)):
            raise OSError(self.number, os.strerror(self.number), name)

    def make_folder(self, path: Path, mode: int = 0o777) -> None:
        self._next("folder", path.name)
        super().make_folder(path, mode)

    def open(self, path: Path, flags: int, mode: int) -> BinaryIO:
        self._next("open", path.name)
        stream = super().open(path, flags, mode)
        self._names[id(stream)] = path.name
        return stream

    def write(self, stream: BinaryIO, data: bytes | memoryview) -> int:
        self._next("write", self._names[id(stream)])
        return super().write(stream, data)

    def replace(self, temporary: Path, path: Path) -> None:
        self._next("replace", path.name)
        super().replace(temporary, path)
