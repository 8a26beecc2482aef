"""Crops that stay in their files: threads decode them a batch at a time, when they are asked for.

First, all of them are decoded once, to find which are whole, and their digest. So every number of a run
is the same as with all crops in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from efquantface.data.source import FaceSource
from efquantface.data.views import BLOCK
from efquantface.errors import DataError

Crop = npt.NDArray[np.uint8]
Decoded = Crop | tuple[int, ...] | str  # a crop, the shape of another image, or what is wrong
Decode = Callable[[int], Decoded]
_AHEAD = 256  # items that threads decode ahead of the consumer


class Names(Sequence[str]):
    """Names of a source's items; made when asked for, not stored."""

    def __init__(self, source: FaceSource, items: npt.NDArray[np.int64]) -> None:
        self.source, self.items = source, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return Names(self.source, self.items[at])
        return self.source.name(int(self.items[at]))

    def at(self, index: npt.NDArray[np.int64]) -> Names:
        """The names at ``index``."""
        return Names(self.source, self.items[index])


class StreamedCrops:
    """uint8 RGB crops (N,H,W,3) of a source, indexed like an array's rows.

    Attributes:
        shape: (N,H,W,3).
        content: the SHA-256 of all crops; None where not all have been read.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        source: FaceSource,
        decode: Decode,
        index: npt.NDArray[np.int64],
        size: tuple[int, int],
        content: hashlib._Hash | None = None,
        mirror: bool = False,
    ) -> None:
        """``decode`` reads an item, ``index`` says which items (N,) are crops of ``size``."""
        self.source, self.decode, self.index = source, decode, index
        self.size, self.content, self.mirror = size, content, mirror
        self.shape = (len(index), *size, 3)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, at: Any, /) -> Crop:
        """Rows by number, slice, or array of numbers.

        Raises:
            DataError: a file has changed, and an item is not a crop any more.
        """
        if isinstance(at, int | np.integer):
            return self._crop(int(self.index[at]))
        if isinstance(at, tuple):
            raise TypeError("streamed crops are indexed by their number only")
        wanted = self.index[at]
        found = np.empty((len(wanted), *self.size, 3), np.uint8)
        # in the file's order, so that neighbours are read together
        order = np.argsort(wanted, kind="stable")
        for place, crop in zip(order, ahead(self._crop, wanted[order]), strict=True):
            found[place] = crop
        return found

    def __iter__(self) -> Iterator[Crop]:
        for start in range(0, len(self), BLOCK):
            yield from self[start : start + BLOCK]

    def take_later(self, index: npt.NDArray[np.int64]) -> StreamedCrops:
        """The crops at ``index``; none is read."""
        index = self.index[index]
        return StreamedCrops(self.source, self.decode, index, self.size, None, self.mirror)

    def mirrored(self) -> StreamedCrops:
        """Their mirror images."""
        return StreamedCrops(self.source, self.decode, self.index, self.size, None, not self.mirror)

    def _crop(self, item: int) -> Crop:
        found = self.decode(item)
        if isinstance(found, np.ndarray) and found.shape[:2] == self.size:
            return found[:, ::-1] if self.mirror else found
        if isinstance(found, np.ndarray):
            found = found.shape
        what = f"has the size {found}" if isinstance(found, tuple) else found
        raise DataError(
            f"{self.source.where}: {self.source.name(item)} has changed since the run began ({what})"
        )


_pools: list[ThreadPoolExecutor] = []


def ahead(work: Callable[[int], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Results of ``work`` in the order of ``items``; threads are at most 256 items ahead."""
    if not _pools:
        _pools.append(ThreadPoolExecutor(thread_name_prefix="efq-decode"))
    waiting: list[Any] = []
    try:
        for item in items:
            waiting.append(_pools[0].submit(work, int(item)))
            if len(waiting) >= _AHEAD:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        for future in waiting:
            future.cancel()


class Seen:
    """What one pass over a source found: which items are crops, and their digest.

    Attributes:
        kept: int64 (N,) items that are whole crops of the right size, in order.
        skipped: (name, reason) of the others.
        content: the crops' SHA-256; not handed to other processes.
    """

    def __init__(self) -> None:
        self.kept = np.empty(0, np.int64)
        self.skipped: list[tuple[str, str]] = []
        self.content = hashlib.sha256()

    def packed(self) -> bytes:
        """``kept`` and ``skipped`` as bytes for another process."""
        head = json.dumps(self.skipped).encode()
        kept = np.asarray(self.kept, "<i8").tobytes()
        return len(head).to_bytes(8, "little") + head + kept

    @classmethod
    def unpacked(cls, data: bytes) -> Seen:
        """Read what :meth:`packed` gave."""
        made = cls()
        size = int.from_bytes(data[:8], "little")
        made.skipped = [(str(n), str(why)) for n, why in json.loads(data[8 : 8 + size])]
        made.kept = np.frombuffer(data[8 + size :], "<i8").astype(np.int64)
        return made
