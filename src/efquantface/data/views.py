"""Arrays read in parts: views by index, blocks, and a digest of the content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from efquantface.interfaces import Rows

BLOCK = 1024  # rows; a multiple of every batch in which faces are embedded


class Taken:
    """Rows of ``rows`` at ``index``, fetched when they are asked for."""

    def __init__(
        self,
        rows: Rows,
        index: npt.NDArray[np.int64],
        made: Callable[[Any], Any] = lambda found: found,
    ) -> None:
        """``made`` is applied to the rows fetched."""
        self.rows, self.index, self.made = rows, index, made

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, at: Any, /) -> Any:
        return self.made(self.rows[self.index[at]])


def take(rows: Any, index: npt.NDArray[np.int64]) -> Any:
    """``rows[index]``; a view where crops stay in their files."""
    return rows.take_later(index) if hasattr(rows, "take_later") else rows[index]


def mirrored(images: Any) -> Any:
    """Mirror images of crops (N,H,W,3), a view."""
    return images[:, :, ::-1] if isinstance(images, np.ndarray) else images.mirrored()


def blocks(rows: Rows, size: int = BLOCK) -> Iterator[Any]:
    """Consecutive parts (at most ``size`` rows)."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def content_hash(images: Any) -> hashlib._Hash:
    """SHA-256 of all crops (N,H,W,3) in order, in memory or in files; the caller may update it."""
    known = getattr(images, "content", None)
    if known is not None:
        return known.copy()  # type: ignore[no-any-return]
    digest = hashlib.sha256()
    for block in blocks(images):
        digest.update(np.ascontiguousarray(block).data)
    return digest
